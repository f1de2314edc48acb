//! A cell: one point of the dimensions of the relay bench.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail, ensure};
use mesh_lab::LinkMode;

/// How large the datagrams are, in bytes of UDP payload as they leave the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// All of one size: 64 to 1,472 bytes.
    Bytes(u16),
    /// The simple Internet mix: of twelve datagrams seven have 64 bytes, four 576 and one 1,400. A burst has one size.
    Imix,
}

impl Payload {
    /// The sizes in turn, as bursts take them.
    pub fn sizes(self) -> Vec<u16> {
        match self {
            Payload::Bytes(bytes) => vec![bytes],
            // Spread out, so that each dozen of bursts holds the mix.
            Payload::Imix => vec![64, 576, 64, 64, 576, 64, 1_400, 64, 576, 64, 576, 64],
        }
    }

    /// Bytes of a datagram on average.
    pub fn mean(self) -> f64 {
        let sizes = self.sizes();
        sizes.iter().map(|bytes| f64::from(*bytes)).sum::<f64>() / sizes.len() as f64
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Bytes(bytes) => write!(formatter, "{bytes}"),
            Payload::Imix => formatter.write_str("imix"),
        }
    }
}

/// What is sent, by how many, over what kind of link.
///
/// Its name is `MODE-PAYLOAD-bBURST-fFLOWS-nNAMESPACES`, for example `nic-1400-b16-f32-n1`; with a rate, `-rRATE` follows:
/// `wire-1200-b1-f1-n1-r200000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Where trains are cut and gathered.
    pub mode: LinkMode,
    /// The size of datagrams.
    pub payload: Payload,
    /// How many datagrams one client sends before the next one does: 1 to 40.
    pub burst: u16,
    /// How many clients send, each to a client of its own: 1 to 1,000.
    pub flows: u16,
    /// Over how many namespaces, that is ports of the relay, they are spread: 1 to 1,000, and no more than flows.
    pub namespaces: u16,
    /// How many datagrams are sent a second, in all; if not given, as many as the generator can. 1 to 10,000,000.
    pub rate: Option<u32>,
}

/// What each dimension of `--matrix` takes.
const PAYLOADS: [Payload; 5] =
    [Payload::Bytes(64), Payload::Bytes(256), Payload::Bytes(1_200), Payload::Bytes(1_400), Payload::Imix];
const BURSTS: [u16; 4] = [1, 4, 16, 40];
const FLOWS: [u16; 3] = [1, 32, 1_000];
const NAMESPACES: [u16; 3] = [1, 32, 1_000];
const MODES: [LinkMode; 3] = [LinkMode::Wire, LinkMode::Nic, LinkMode::Veth];

/// The cells of `--quick`: whole trains, singles, and small datagrams of many.
pub const QUICK: [&str; 3] = ["nic-1400-b16-f32-n1", "wire-1200-b1-f1-n1", "wire-64-b1-f1000-n1"];

/// The cells of a run without a choice: those the targets of the project name.
pub const DEFAULT: [&str; 10] = [
    "veth-1200-b40-f1-n1",
    "nic-1200-b40-f1-n1",
    "nic-1400-b16-f32-n1",
    "wire-1200-b40-f1-n1",
    "wire-1200-b1-f1-n1-r200000",
    "wire-64-b1-f1000-n1",
    "wire-1200-b1-f1000-n1000-r50000",
    "nic-1200-b16-f1000-n1",
    "nic-1200-b16-f1000-n1000",
    "nic-imix-b4-f32-n1",
];

impl Cell {
    /// Every cell of the matrix, in one order.
    pub fn matrix() -> Vec<Cell> {
        let mut cells = Vec::new();
        for mode in MODES {
            for payload in PAYLOADS {
                for burst in BURSTS {
                    for flows in FLOWS {
                        for namespaces in NAMESPACES.into_iter().filter(|namespaces| *namespaces <= flows) {
                            cells.push(Cell { mode, payload, burst, flows, namespaces, rate: None });
                        }
                    }
                }
            }
        }
        cells
    }

    /// The cells of an expression: parts joined by commas, each a whole name, or a name in which a dimension left out, or given as
    /// `*`, takes every value of the matrix: `nic-1400`, `*-64-b1`, `f1000`.
    ///
    /// # Errors
    /// A part that is no such thing, or names no cell; it is named.
    pub fn select(expression: &str) -> Result<Vec<Cell>> {
        let mut cells: Vec<Cell> = Vec::new();
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
        let payload = match self.payload {
            Payload::Bytes(bytes @ 1_000..) => format!("{},{:03} bytes", bytes / 1_000, bytes % 1_000),
            Payload::Bytes(bytes) => format!("{bytes} bytes"),
            Payload::Imix => "64, 576 and 1,400 bytes mixed 7:4:1".into(),
        };
        let rate = self.rate.map(|rate| format!(", {rate} a second in all")).unwrap_or_default();
        let plural = |count: u16, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        format!(
            "{payload}, {} from {} over {}{rate}, link mode {}",
            plural(self.burst, "datagram at a time", "datagrams in a burst"),
            plural(self.flows, "client", "clients"),
            plural(self.namespaces, "port", "ports"),
            self.mode
        )
    }
}

/// The cells of the matrix that a pattern fits.
fn matching(pattern: &str) -> Result<Vec<Cell>> {
    let mut cells = Cell::matrix();
    for word in pattern.split('-').filter(|word| *word != "*") {
        let count = |prefix: char| word.strip_prefix(prefix).and_then(|number| number.parse::<u16>().ok());
        if let Ok(mode) = word.parse::<LinkMode>() {
            cells.retain(|cell| cell.mode == mode);
        } else if let Ok(payload) = word.parse::<Payload>() {
            cells.retain(|cell| cell.payload == payload);
        } else if let Some(burst) = count('b') {
            cells.retain(|cell| cell.burst == burst);
        } else if let Some(flows) = count('f') {
            cells.retain(|cell| cell.flows == flows);
        } else if let Some(namespaces) = count('n') {
            cells.retain(|cell| cell.namespaces == namespaces);
        } else {
            bail!("{word:?} in {pattern:?} is no link mode, payload, b…, f… or n…");
        }
    }
    Ok(cells)
}

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { mode, payload, burst, flows, namespaces, rate } = self;
        write!(formatter, "{mode}-{payload}-b{burst}-f{flows}-n{namespaces}")?;
        rate.map_or(Ok(()), |rate| write!(formatter, "-r{rate}"))
    }
}

impl FromStr for Payload {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "imix" {
            return Ok(Payload::Imix);
        }
        let bytes: u16 = text.parse().with_context(|| format!("{text:?} is no payload"))?;
        ensure!((64..=1_472).contains(&bytes), "a payload has 64 to 1472 bytes, not {bytes}");
        Ok(Payload::Bytes(bytes))
    }
}

impl FromStr for Cell {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split('-').collect();
        let (mode, payload, burst, flows, namespaces, rate) = match words[..] {
            [mode, payload, burst, flows, namespaces] => (mode, payload, burst, flows, namespaces, None),
            [mode, payload, burst, flows, namespaces, rate] => (mode, payload, burst, flows, namespaces, Some(rate)),
            _ => bail!("{text:?} is not MODE-PAYLOAD-bBURST-fFLOWS-nNAMESPACES or that with -rRATE"),
        };
        let count = |word: &str, prefix: char, most: u32| -> Result<u32> {
            let number = word.strip_prefix(prefix).and_then(|number| number.parse().ok());
            number
                .filter(|number| (1..=most).contains(number))
                .with_context(|| format!("{word:?} in {text:?} is not {prefix}1 to {prefix}{most}"))
        };
        let cell = Cell {
            mode: mode.parse()?,
            payload: payload.parse()?,
            burst: count(burst, 'b', 40)? as u16,
            flows: count(flows, 'f', 1_000)? as u16,
            namespaces: count(namespaces, 'n', 1_000)? as u16,
            rate: rate.map(|rate| count(rate, 'r', 10_000_000)).transpose()?,
        };
        ensure!(cell.namespaces <= cell.flows, "{text:?} has more namespaces than flows");
        Ok(cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for cell in Cell::matrix() {
            assert_eq!(cell.to_string().parse::<Cell>().unwrap(), cell);
        }
        for name in QUICK.into_iter().chain(DEFAULT) {
            assert_eq!(name.parse::<Cell>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn an_expression_names_cells() {
        let names = |expression| Cell::select(expression).unwrap().iter().map(Cell::to_string).collect::<Vec<_>>();
        assert_eq!(names("nic-1300-b3-f7-n2"), ["nic-1300-b3-f7-n2"], "a whole name need not be of the matrix");
        assert_eq!(names("wire-1200-b1-f1-n1-r200000"), ["wire-1200-b1-f1-n1-r200000"]);
        assert_eq!(names("wire-64-b1-f1"), ["wire-64-b1-f1-n1"]);
        assert_eq!(names("wire-64-b1-f1, wire-64-b1-f1-n1"), ["wire-64-b1-f1-n1"], "each cell once");
        assert_eq!(names("*-64-b1-f1").len(), 3);
        assert_eq!(names("*").len(), Cell::matrix().len());
    }

    #[test]
    fn what_is_no_cell_is_named() {
        for (expression, word) in [
            ("fast", "\"fast\""),
            ("nic-63", "\"63\""),
            ("b2", "no cell"),
            ("nic-1400-b41-f1-n1", "no cell"),
            ("nic-1400-b1-f1-n1-r0", "\"r0\""),
            ("nic-1400-b1-f1-n1,nothing", "\"nothing\""),
            ("", "\"\""),
        ] {
            let why = format!("{:#}", Cell::select(expression).unwrap_err());
            assert!(why.contains(word), "{expression}: {why}");
        }
    }

    #[test]
    fn the_mix_is_seven_to_four_to_one() {
        let sizes = Payload::Imix.sizes();
        let count = |bytes| sizes.iter().filter(|size| **size == bytes).count();
        assert_eq!((count(64), count(576), count(1_400)), (7, 4, 1));
    }
}
