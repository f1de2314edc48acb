//! Cutting and joining, against the plainest way to do either.

mod checksum;
mod cut;
mod join;
mod plain;
mod properties;
mod single;
mod virtio;
