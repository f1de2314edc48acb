//! How a multishot receive lays a slot out ([`HEADING_BYTES`] before the payload):
//!
//! ```text
//! +--------------------+--------------------+--------------------------+--------------------
//! | io_uring_recvmsg_  | source address     | control messages         | payload: the train
//! | out, 16 bytes      | NAME_BYTES         | CONTROL_BYTES            |
//! +--------------------+--------------------+--------------------------+--------------------
//! ```

use mesh_udp::control::{CONTROL_BYTES, NAME_BYTES, Received};

/// `struct io_uring_recvmsg_out`: lengths of name, control and payload, and flags, 32 bits each.
const OUT_BYTES: usize = 16;
/// Bytes of a slot before the payload.
pub(crate) const HEADING_BYTES: usize = OUT_BYTES + NAME_BYTES + CONTROL_BYTES;

/// Reads the heading of a slot; `filled` is how many bytes the kernel says it wrote. `None` if the payload or what is told of it
/// was cut, or makes no sense.
pub(crate) fn parse(heading: &[u8; HEADING_BYTES], filled: usize) -> Option<Received> {
    let length = filled.checked_sub(HEADING_BYTES)?;
    let (out, rest) = heading.split_at(OUT_BYTES);
    let (name, control) = rest.split_at(NAME_BYTES);
    let field = |at: usize| Some(u32::from_ne_bytes(out.get(at..at + 4)?.try_into().ok()?));
    let control_bytes = (field(4)? as usize).min(CONTROL_BYTES);
    let flags = field(12)?.cast_signed();
    mesh_udp::control::parse(name, &control[..control_bytes], length, flags)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{HEADING_BYTES, NAME_BYTES, OUT_BYTES, parse};

    /// A heading from `127.0.0.1:7` whose TOS is 4, with these flags and this length of control messages.
    fn heading(flags: i32, control_bytes: u32) -> [u8; HEADING_BYTES] {
        let mut bytes = [0; HEADING_BYTES];
        bytes[4..8].copy_from_slice(&control_bytes.to_ne_bytes());
        bytes[12..16].copy_from_slice(&flags.to_ne_bytes());
        bytes[OUT_BYTES..OUT_BYTES + 2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        bytes[OUT_BYTES + 2..OUT_BYTES + 8].copy_from_slice(&[0, 7, 127, 0, 0, 1]);
        let at = OUT_BYTES + NAME_BYTES;
        bytes[at..at + 8].copy_from_slice(&17_usize.to_ne_bytes());
        bytes[at + 8..at + 12].copy_from_slice(&libc::IPPROTO_IP.to_ne_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&libc::IP_TOS.to_ne_bytes());
        bytes[at + 16] = 4;
        bytes
    }

    #[test]
    fn the_parts_are_found_where_the_kernel_puts_them() {
        let received = parse(&heading(0, 24), HEADING_BYTES + 250).unwrap();
        assert_eq!((received.length, received.tos), (250, 4));
        assert_eq!(received.remote, SocketAddr::from(([127, 0, 0, 1], 7)));
        assert_eq!(parse(&heading(0, 0), HEADING_BYTES + 250).unwrap().tos, 0);
    }

    #[test]
    fn what_was_cut_is_refused_and_a_length_beyond_the_heading_reads_no_payload() {
        assert_eq!(parse(&heading(libc::MSG_TRUNC, 24), HEADING_BYTES + 10), None);
        assert_eq!(parse(&heading(0, 24), HEADING_BYTES - 1), None);
        assert_eq!(parse(&heading(0, u32::MAX), HEADING_BYTES + 1).unwrap().tos, 4);
    }
}
