//! The transfer against gateways made of nothing but the wire and the session module.

mod bounds;
mod forwarding;
mod handshakes;
mod lookups;
mod padding;
mod registration;
mod world;
