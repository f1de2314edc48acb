//! The transfer against gateways made of nothing but the wire and the session module.

mod bounds;
mod crowds;
mod forwarding;
mod handshakes;
mod hostile;
mod lookups;
mod mirror;
mod padding;
mod registration;
mod searches;
mod world;
