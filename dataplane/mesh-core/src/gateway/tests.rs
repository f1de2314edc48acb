//! What the gateway does, shown by gateways and a real transfer in one process, and piece by piece.

mod attackers;
mod beacons;
mod hostile;
mod hostile_peer;
mod lifecycle;
mod network;
mod order;
mod outbound;
mod packets;
mod paths;
mod pieces;
mod reach;
mod recordings;
mod registering;
mod searching;
mod sessions;
mod sizes;
mod sockets;
mod straight;
mod streams;
mod tcp;
mod world;
