//! The state machines of EasyMesh.

pub mod drops;
pub mod gateway;
pub mod node;
pub mod seam;
pub mod session;
pub mod transfer;
