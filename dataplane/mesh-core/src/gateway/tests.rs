//! What the gateway does, shown by gateways and a real transfer in one process, and piece by piece.

mod hostile;
mod lifecycle;
mod order;
mod packets;
mod pieces;
mod sessions;
mod world;
