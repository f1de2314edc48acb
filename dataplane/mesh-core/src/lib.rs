//! The state machines of EasyMesh.
#![forbid(unsafe_code)]

pub mod seam;
