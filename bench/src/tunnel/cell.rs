//! A cell: one point of the dimensions of the tunnel bench.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail, ensure};
use mesh_lab::LinkMode;

/// The way packets take from one gateway to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Path {
    /// Through a relay in the middle host; the outer hosts have no route to each other.
    Relayed,
    /// From one outer host to the other; the middle host routes.
    Direct,
}

/// The congestion control of TCP, set on both ends and read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Congestion {
    /// It follows the rate and the round-trip time it measures; targets are named in it.
    Bbr,
    /// It follows losses; what most machines use.
    Cubic,
}

/// What is sent through the tunnel, from the left host to the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// TCP streams that never end.
    Tcp {
        /// How many at once: 1 to 64.
        streams: u16,
        /// Their congestion control.
        congestion: Congestion,
    },
    /// UDP datagrams with so many bytes of payload each, 16 to 8,972: as fast as at most one in a thousand is lost, then at twice
    /// that rate.
    Udp {
        /// Payload of the inner datagram, in bytes.
        payload: u16,
    },
    /// ICMP echoes through the idle tunnel.
    Ping,
    /// ICMP echoes beside one TCP stream that never ends.
    BulkPing {
        /// The congestion control of the stream.
        congestion: Congestion,
    },
}

/// What is sent, on which path, over what kind of link.
///
/// Its name is `PATH-KIND-MODE` with the congestion control after the kind of cells with TCP, and the size of the largest inner
/// packet at the end where it is not [`TunnelCell::INNER_MTU`]: `relayed-tcp1-bbr-nic`, `direct-udp1200-veth-1408`,
/// `relayed-ping-wire`, `direct-bulkping-bbr-veth-1380`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelCell {
    /// The way packets take.
    pub path: Path,
    /// What is sent.
    pub kind: Kind,
    /// Where trains are cut and gathered, on both links.
    pub mode: LinkMode,
    /// The largest inner packet in bytes, equal for all systems: 576 to 9,000.
    pub inner_mtu: u16,
}

const PATHS: [Path; 2] = [Path::Relayed, Path::Direct];
const STREAMS: [u16; 2] = [1, 8];
const CONGESTIONS: [Congestion; 2] = [Congestion::Bbr, Congestion::Cubic];
const PAYLOADS: [u16; 2] = [64, 1_200];
/// The word for [`Kind::BulkPing`].
const BULK_PING: &str = "bulkping";
const MODES: [LinkMode; 3] = [LinkMode::Wire, LinkMode::Nic, LinkMode::Veth];
const INNER_MTUS: [u16; 3] = [TunnelCell::INNER_MTU, TunnelCell::INNER_MTU_OF_TARGETS, TunnelCell::INNER_MTU_OF_1500];

/// The cells of `--quick`, all of one path and size: systems start once.
pub const QUICK: [&str; 4] =
    ["direct-tcp1-bbr-veth-1380", "direct-ping-veth-1380", "direct-bulkping-bbr-veth-1380", "direct-udp64-veth-1380"];

/// The cells of a run without a choice, those of one path side by side, as systems keep running between them. The first six are those
/// that targets are about, and where the same is shown with other links and another congestion control.
pub const DEFAULT: [&str; 10] = [
    "direct-tcp1-bbr-veth-1380",
    "direct-tcp1-bbr-nic-1380",
    "direct-tcp1-cubic-veth-1380",
    "direct-ping-veth-1380",
    "direct-bulkping-bbr-veth-1380",
    "direct-udp64-veth-1380",
    "relayed-tcp1-bbr-veth-1380",
    "relayed-ping-veth-1380",
    "relayed-tcp1-bbr-nic",
    "relayed-udp1200-nic",
];

impl TunnelCell {
    /// The inner MTU of a cell whose name does not tell one: the least of IPv6. EasyMesh has it if told `-mtu 1372`.
    pub const INNER_MTU: u16 = 1_280;
    /// The inner MTU of the cells that targets are about: EasyMesh has it if told `-mtu 1472`.
    pub const INNER_MTU_OF_TARGETS: u16 = 1_380;
    /// What EasyMesh has if told that the network outside carries 1,500 bytes (`-mtu 1500`).
    pub const INNER_MTU_OF_1500: u16 = 1_408;

    /// Every cell of the matrix, in one order.
    pub fn matrix() -> Vec<TunnelCell> {
        let tcp = STREAMS
            .into_iter()
            .flat_map(|streams| CONGESTIONS.into_iter().map(move |congestion| Kind::Tcp { streams, congestion }));
        let udp = PAYLOADS.into_iter().map(|payload| Kind::Udp { payload });
        let bulk = CONGESTIONS.into_iter().map(|congestion| Kind::BulkPing { congestion });
        let kinds: Vec<Kind> = tcp.chain(udp).chain([Kind::Ping]).chain(bulk).collect();
        let mut cells = Vec::new();
        for path in PATHS {
            for inner_mtu in INNER_MTUS {
                for kind in &kinds {
                    cells.extend(MODES.map(|mode| TunnelCell { path, kind: *kind, mode, inner_mtu }));
                }
            }
        }
        cells
    }

    /// The cells of an expression: parts joined by commas, each a whole name, or words of one joined by dashes that pick the cells
    /// of the matrix which have them: `relayed-tcp1`, `udp-nic`, `cubic`, `*`. `tcp` and `udp` mean every such kind; an inner MTU
    /// left out is the default one, `*-1408` and `*-any` take another, or all.
    ///
    /// # Errors
    /// A part that is no such thing, or fits no cell; it is named.
    pub fn select(expression: &str) -> Result<Vec<TunnelCell>> {
        let mut cells: Vec<TunnelCell> = Vec::new();
        for part in expression.split(',').map(str::trim) {
            let found = match part.parse() {
                Ok(cell) => vec![cell],
                Err(_) => matching(part)?,
            };
            ensure!(!found.is_empty(), "no cell of the matrix fits {part:?}");
            cells.extend(found.into_iter().filter(|cell| !cells.contains(cell)).collect::<Vec<_>>());
        }
        Ok(cells)
    }

    /// In words, for somebody who does not know the names.
    pub fn about(&self) -> String {
        let kind = match self.kind {
            Kind::Tcp { streams: 1, congestion } => format!("one TCP stream with congestion control {congestion}"),
            Kind::Tcp { streams, congestion } => format!("{streams} TCP streams with congestion control {congestion}"),
            Kind::Udp { payload } => {
                format!("UDP datagrams of {payload} bytes, at the highest rate of which at most 0.1 % is lost")
            }
            Kind::Ping => "pings of 64 bytes through the idle tunnel".into(),
            Kind::BulkPing { congestion } => {
                format!("pings of 64 bytes beside one TCP stream with congestion control {congestion}")
            }
        };
        let path = match self.path {
            Path::Relayed => "through a relay",
            Path::Direct => "from host to host",
        };
        format!("{kind}, {path}, inner packets of at most {} bytes, link mode {}", self.inner_mtu, self.mode)
    }

    /// The [`Figure::key`](crate::figure::Figure::key) of what ranks systems in this cell.
    pub fn headline(&self) -> &'static str {
        match self.kind {
            Kind::Tcp { .. } | Kind::Udp { .. } => "gbit_s",
            Kind::Ping | Kind::BulkPing { .. } => "rtt_p50_us",
        }
    }
}

/// The cells of the matrix that a pattern fits.
fn matching(pattern: &str) -> Result<Vec<TunnelCell>> {
    let mut cells = TunnelCell::matrix();
    let mut inner_mtu = Some(TunnelCell::INNER_MTU);
    for word in pattern.split('-').filter(|word| *word != "*") {
        let congestion_of = |cell: &TunnelCell| match cell.kind {
            Kind::Tcp { congestion, .. } | Kind::BulkPing { congestion } => Some(congestion),
            Kind::Udp { .. } | Kind::Ping => None,
        };
        if let Ok(path) = word.parse::<Path>() {
            cells.retain(|cell| cell.path == path);
        } else if let Ok(mode) = word.parse::<LinkMode>() {
            cells.retain(|cell| cell.mode == mode);
        } else if let Ok(congestion) = word.parse::<Congestion>() {
            cells.retain(|cell| congestion_of(cell) == Some(congestion));
        } else if word == "tcp" {
            cells.retain(|cell| matches!(cell.kind, Kind::Tcp { .. }));
        } else if word == "udp" {
            cells.retain(|cell| matches!(cell.kind, Kind::Udp { .. }));
        } else if word == "any" {
            inner_mtu = None;
        } else if let Ok(bytes) = word.parse::<u16>() {
            inner_mtu = Some(bytes);
        } else if let Ok(kind) = kind_of(word, Congestion::Bbr) {
            cells.retain(|cell| match (cell.kind, kind) {
                (Kind::Tcp { streams, .. }, Kind::Tcp { streams: wanted, .. }) => streams == wanted,
                (Kind::BulkPing { .. }, Kind::BulkPing { .. }) => true,
                (own, wanted) => own == wanted,
            });
        } else {
            bail!("{word:?} in {pattern:?} is no path, kind, congestion control, link mode or inner MTU");
        }
    }
    cells.retain(|cell| inner_mtu.is_none_or(|bytes| cell.inner_mtu == bytes));
    Ok(cells)
}

/// Whether the congestion control of TCP follows this word of a name.
fn has_congestion(word: &str) -> bool {
    word.starts_with("tcp") || word == BULK_PING
}

/// The kind a word of a name stands for; the congestion control of TCP is in a word of its own.
fn kind_of(word: &str, congestion: Congestion) -> Result<Kind> {
    let number = |text: &str, least: u16, most: u16| -> Result<u16> {
        let number = text.parse().with_context(|| format!("{word:?} ends with no number"))?;
        ensure!((least..=most).contains(&number), "{word:?}: {number} is not {least} to {most}");
        Ok(number)
    };
    if let Some(streams) = word.strip_prefix("tcp") {
        return Ok(Kind::Tcp { streams: number(streams, 1, 64)?, congestion });
    }
    if let Some(payload) = word.strip_prefix("udp") {
        return Ok(Kind::Udp { payload: number(payload, 16, 8_972)? });
    }
    match word {
        "ping" => Ok(Kind::Ping),
        BULK_PING => Ok(Kind::BulkPing { congestion }),
        _ => bail!("{word:?} is not tcpN, udpN, ping or {BULK_PING}"),
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Path::Relayed => "relayed",
            Path::Direct => "direct",
        })
    }
}

impl FromStr for Path {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = PATHS.into_iter().find(|path| path.to_string() == text);
        found.with_context(|| format!("{text:?} is no path"))
    }
}

impl Congestion {
    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Congestion::Bbr => "bbr",
            Congestion::Cubic => "cubic",
        }
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Congestion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = CONGESTIONS.into_iter().find(|congestion| congestion.name() == text);
        found.with_context(|| format!("{text:?} is no congestion control known here"))
    }
}

impl fmt::Display for TunnelCell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-", self.path)?;
        match self.kind {
            Kind::Tcp { streams, congestion } => write!(formatter, "tcp{streams}-{congestion}")?,
            Kind::Udp { payload } => write!(formatter, "udp{payload}")?,
            Kind::Ping => formatter.write_str("ping")?,
            Kind::BulkPing { congestion } => write!(formatter, "{BULK_PING}-{congestion}")?,
        }
        write!(formatter, "-{}", self.mode)?;
        if self.inner_mtu == Self::INNER_MTU { Ok(()) } else { write!(formatter, "-{}", self.inner_mtu) }
    }
}

impl FromStr for TunnelCell {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut words = text.split('-');
        let mut next = || words.next().with_context(|| format!("{text:?} is not PATH-KIND-MODE"));
        let path = next()?.parse()?;
        let word = next()?;
        let congestion = if has_congestion(word) { next()?.parse()? } else { Congestion::Bbr };
        let (kind, mode) = (kind_of(word, congestion)?, next()?.parse()?);
        let inner_mtu = match words.next() {
            None => Self::INNER_MTU,
            Some(bytes) => bytes.parse().with_context(|| format!("{bytes:?} in {text:?} is no inner MTU"))?,
        };
        ensure!((576..=9_000).contains(&inner_mtu), "an inner MTU is 576 to 9000 bytes, not {inner_mtu}");
        ensure!(words.next().is_none(), "{text:?} goes on after the inner MTU");
        Ok(TunnelCell { path, kind, mode, inner_mtu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let cells = TunnelCell::matrix();
        assert_eq!(cells.len(), 2 * 3 * 9 * 3);
        for cell in cells {
            assert_eq!(cell.to_string().parse::<TunnelCell>().unwrap(), cell);
        }
        for name in QUICK.into_iter().chain(DEFAULT) {
            assert_eq!(name.parse::<TunnelCell>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn systems_start_once_for_each_path_and_size_of_the_default_run() {
        let places: Vec<_> = DEFAULT
            .iter()
            .map(|name| name.parse::<TunnelCell>().unwrap())
            .map(|cell| (cell.path, cell.inner_mtu))
            .collect();
        let mut starts = places.clone();
        starts.dedup();
        let mut different = places;
        different.sort_unstable();
        different.dedup();
        assert_eq!(starts.len(), different.len());
    }

    #[test]
    fn an_expression_names_cells() {
        let names =
            |expression| TunnelCell::select(expression).unwrap().iter().map(TunnelCell::to_string).collect::<Vec<_>>();
        assert_eq!(
            names("relayed-tcp3-cubic-nic-1300"),
            ["relayed-tcp3-cubic-nic-1300"],
            "it need not be of the matrix"
        );
        assert_eq!(names("direct-ping-wire, direct-ping-wire"), ["direct-ping-wire"], "each cell once");
        assert_eq!(names("relayed-tcp1-nic"), ["relayed-tcp1-bbr-nic", "relayed-tcp1-cubic-nic"]);
        assert_eq!(names("direct-udp-veth-1408"), ["direct-udp64-veth-1408", "direct-udp1200-veth-1408"]);
        assert_eq!(names("tcp-cubic").len(), 2 * 2 * 3);
        assert_eq!(names("direct-bulkping-bbr-veth-1380"), ["direct-bulkping-bbr-veth-1380"]);
        assert_eq!(names("direct-bulkping-wire"), ["direct-bulkping-bbr-wire", "direct-bulkping-cubic-wire"]);
        assert_eq!(names("*-any").len(), TunnelCell::matrix().len());
        assert_eq!(names("*").len() * 3, TunnelCell::matrix().len());
    }

    #[test]
    fn what_is_no_cell_is_named() {
        for (expression, word) in [
            ("fast", "\"fast\""),
            ("relayed-tcp0-bbr-nic", "\"tcp0\""),
            ("direct-bulkping-veth-1380-bbr-reno", "\"reno\""),
            ("udp-bbr", "\"udp-bbr\""),
            ("relayed-ping-nic-12", "no cell"),
            ("relayed-ping-nic,nothing", "\"nothing\""),
            ("", "\"\""),
        ] {
            let why = format!("{:#}", TunnelCell::select(expression).unwrap_err());
            assert!(why.contains(word), "{expression}: {why}");
        }
    }

    #[test]
    fn a_tcp_cell_tells_its_congestion_control() {
        for cell in TunnelCell::matrix() {
            if let Kind::Tcp { congestion, .. } | Kind::BulkPing { congestion } = cell.kind {
                assert!(cell.about().contains(congestion.name()), "{}", cell.about());
            }
        }
    }
}
