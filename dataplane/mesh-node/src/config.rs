//! What a program was told: flags, `EASYMESH_*` variables, a TOML file and defaults, in this order of precedence.
//!
//! [`Settings`] holds the words, [`TransferOptions`] and [`GatewayOptions`] what they mean. Messages name the flag that is wrong
//! and never repeat the value of one that may hold a secret.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use mesh_core::gateway::PathChoice;
use mesh_wire::message::NAME_BYTES_MAX;

use crate::ciphers::CipherChoice;
use crate::cli::flags::{Flag, Kind};
use crate::cli::{Failure, Given, Variables};
use crate::mapping::MappingChoice;
use crate::resolve::HostPort;
use crate::secret::SecretString;
use crate::select::EngineChoice;
use crate::spread::Spread;

/// Longest token, secret or file that holds one, in bytes.
const SECRET_BYTES_MAX: u64 = 4096;

/// The mask of the virtual network when `-ip` names none: 255.255.0.0.
const PREFIX_DEFAULT: u8 = 16;

/// Where a value comes from; a later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// The `-config` file.
    File,
    /// An `EASYMESH_*` variable.
    Variable,
    /// The command line.
    Flag,
}

/// All values of a program's flags, with where they come from.
pub struct Settings {
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl Settings {
    /// Flags and defaults alone.
    pub(crate) fn from_flags(flags: &[Flag], given: Given) -> Self {
        let mut values: BTreeMap<_, _> =
            flags.iter().map(|flag| (flag.name, (flag.default.to_owned(), Origin::Default))).collect();
        values.extend(given.into_iter().map(|(name, value)| (name, (value, Origin::Flag))));
        Self { values }
    }

    /// Flags over variables over the file that `-config` names over defaults. An empty variable counts as not set.
    pub(crate) fn gather(flags: &[Flag], given: Given, variable: &Variables) -> Result<Self, Failure> {
        let mut settings = Self::from_flags(flags, given);
        for flag in flags.iter().filter(|flag| flag.name != "help") {
            let name = flag.variable();
            let Some(value) = variable(&name).filter(|value| !value.is_empty()) else { continue };
            let value =
                value.into_string().map_err(|_| Failure::Usage(format!("{name} is not UTF-8: write it in UTF-8")))?;
            settings.offer(flag.name, value, Origin::Variable);
        }
        let file = settings.text("config").to_owned();
        if !file.is_empty() {
            for (name, value) in read_file(Path::new(&file), flags)? {
                settings.offer(name, value, Origin::File);
            }
        }
        Ok(settings)
    }

    /// Takes a value unless a stronger one is there.
    fn offer(&mut self, name: &'static str, value: String, origin: Origin) {
        if let Some(place) = self.values.get_mut(name)
            && place.1 < origin
        {
            *place = (value, origin);
        }
    }

    /// The text of a flag.
    pub fn text(&self, name: &str) -> &str {
        &self.entry(name).0
    }

    /// Where a flag's value comes from.
    pub fn origin(&self, name: &str) -> Origin {
        self.entry(name).1
    }

    /// The number of a flag, within `least..=most`.
    pub fn number(&self, name: &str, least: u32, most: u32) -> Result<u32, Failure> {
        let number = self.text(name).parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| not_a_number(name, least, most, least.max(1)))
    }

    /// Whether a switch is on. Accepts what Go's `flag` package accepts.
    pub fn switch(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name) {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(Failure::Usage(format!("-{name} is a switch: write -{name}, -{name}=true or -{name}=false"))),
        }
    }

    /// A secret given as `-name` or in the file `-name-file`; the stronger origin wins, two of one origin contradict.
    fn secret(&self, name: &str) -> Result<SecretString, Failure> {
        let file_flag = format!("{name}-file");
        let (text, by_text) = self.entry(name);
        let (file, by_file) = self.entry(&file_flag);
        let secret = match (text.is_empty(), file.is_empty()) {
            (_, true) => SecretString::new(text.clone()),
            (false, false) if by_text == by_file => {
                return Err(Failure::Usage(format!("-{name} and -{file_flag} are both given: leave one away")));
            }
            (false, false) if by_text > by_file => SecretString::new(text.clone()),
            _ => read_secret(Path::new(file), &file_flag)?,
        };
        if secret.expose().len() as u64 > SECRET_BYTES_MAX {
            return Err(Failure::Usage(format!("-{name} is longer than {SECRET_BYTES_MAX} bytes: give a shorter one")));
        }
        Ok(secret)
    }

    fn entry(&self, name: &str) -> &(String, Origin) {
        self.values.get(name).expect("every flag asked for stands in the program's table")
    }
}

fn not_a_number(name: &str, least: u32, most: u32, example: u32) -> Failure {
    Failure::Usage(format!("-{name} is not a number in {least}..{most}: give one, as in -{name} {example}"))
}

/// Reads a TOML file whose keys are flags without dashes.
fn read_file(path: &Path, flags: &[Flag]) -> Result<Vec<(&'static str, String)>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| unreadable("config", path, &error))?;
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        // The error's own text shows the line it stumbled over, which may hold the token.
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        Failure::Usage(format!(
            "-config {shown}, line {line}: {}: write KEY = VALUE lines",
            error.message().replace('\n', " ")
        ))
    })?;
    let mut values = Vec::new();
    for (key, value) in table {
        let wrong = |what: &str| Failure::Usage(format!("-config {shown}: {key}: {what}"));
        let Some(flag) = flags.iter().find(|flag| flag.name == key && !matches!(flag.name, "config" | "help")) else {
            return Err(wrong("unknown key: keys are the flags that -help lists, without dashes"));
        };
        let value = match (flag.kind, value) {
            (Kind::Text, toml::Value::String(text)) => text,
            (Kind::Int, toml::Value::Integer(number)) => number.to_string(),
            (Kind::Bool, toml::Value::Boolean(on)) => on.to_string(),
            (Kind::Text, _) => return Err(wrong("wants text: put it in quotes")),
            (Kind::Int, toml::Value::String(_)) => return Err(wrong("wants a number: write it without quotes")),
            (Kind::Int, _) => return Err(wrong("wants a whole number: write digits alone")),
            (Kind::Bool, toml::Value::String(_)) => return Err(wrong("wants true or false: write it without quotes")),
            (Kind::Bool, _) => return Err(wrong("wants true or false: write one of the two")),
        };
        values.push((flag.name, value));
    }
    Ok(values)
}

/// A file that a flag names cannot be read.
fn unreadable(flag: &str, path: &Path, error: &std::io::Error) -> anyhow::Error {
    let what = format!("cannot read -{flag} {}", path.display());
    trouble(what, error, "give the path of a file that this user can read")
}

/// Reads a secret from a file: all of it but the line end.
fn read_secret(path: &Path, flag: &str) -> Result<SecretString, Failure> {
    let shown = path.display();
    let length = std::fs::metadata(path).map_err(|error| unreadable(flag, path, &error))?.len();
    if length > SECRET_BYTES_MAX {
        return Err(Failure::Usage(format!(
            "-{flag} {shown} is longer than {SECRET_BYTES_MAX} bytes: name another file"
        )));
    }
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(|error| unreadable(flag, path, &error))?);
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(Failure::Usage(format!("-{flag} {shown} is empty: write the secret into it")));
    }
    Ok(SecretString::new(secret.to_owned()))
}

/// What both programs are told.
#[derive(Debug)]
pub struct CommonOptions {
    /// `-engine`.
    pub engine: EngineChoice,
    /// `-log`.
    pub log: PathBuf,
    /// `-debug`.
    pub debug: bool,
    /// `-state`, if given.
    pub state: Option<PathBuf>,
    /// `-token`; empty if none was given.
    pub token: SecretString,
}

impl CommonOptions {
    fn from_settings(settings: &Settings) -> Result<Self, Failure> {
        Ok(Self {
            engine: settings.text("engine").parse().map_err(Failure::Usage)?,
            log: PathBuf::from(settings.text("log")),
            debug: settings.switch("debug")?,
            state: Some(settings.text("state")).filter(|state| !state.is_empty()).map(PathBuf::from),
            token: settings.secret("token")?,
        })
    }
}

/// What `transfer` is told.
#[derive(Debug)]
pub struct TransferOptions {
    /// What both programs are told.
    pub common: CommonOptions,
    /// The first port.
    pub bind: u16,
    /// How many ports from there, at least 1; the last is at most 65535.
    pub nums: u16,
    /// What others reach this host by.
    pub public: String,
    /// Whether `-public` was given by anyone.
    pub public_given: bool,
    /// The ports that all data threads serve.
    pub spread: Spread,
}

impl TransferOptions {
    /// Checks the settings.
    pub fn from_settings(settings: &Settings) -> Result<Self, Failure> {
        let port = |number: u32| u16::try_from(number).expect("checked against 65535");
        let bind = port(settings.number("bind", 1, 65_535)?);
        let nums = port(settings.number("nums", 1, 65_535)?);
        if u32::from(bind) + u32::from(nums) - 1 > 65_535 {
            let most = 65_536 - u32::from(bind);
            return Err(Failure::Usage(format!(
                "-bind {bind} with -nums {nums} goes beyond port 65535: give at most -nums {most}"
            )));
        }
        let spread: Spread = settings.text("spread").parse().map_err(Failure::Usage)?;
        if let Some(port) = spread.outside(bind, bind + (nums - 1)) {
            return Err(Failure::Usage(format!(
                "-spread names port {port}, which is not among those of -bind and -nums: name one of {bind} to {}",
                bind + (nums - 1)
            )));
        }
        Ok(Self {
            common: CommonOptions::from_settings(settings)?,
            spread,
            bind,
            nums,
            public: settings.text("public").to_owned(),
            public_given: settings.origin("public") != Origin::Default,
        })
    }
}

/// What `gateway` is told.
#[derive(Debug)]
pub struct GatewayOptions {
    /// What both programs are told.
    pub common: CommonOptions,
    /// The virtual address.
    pub ip: Ipv4Addr,
    /// Length of the virtual network's prefix, in bits.
    pub prefix: u8,
    /// The transfer; its port is the namespace.
    pub trans: HostPort,
    /// `-iface`: a name or an address.
    pub iface: String,
    /// Whether `-iface` was given by anyone.
    pub iface_given: bool,
    /// What packets are sealed with.
    pub cipher: CipherChoice,
    /// Whether the router is asked for a port.
    pub mapping: MappingChoice,
    /// Fixed size of outer packets in bytes, if given.
    pub mtu: Option<u16>,
    /// Whether the system may leave segments and checksums to the virtual interface.
    pub offload: bool,
    /// Which paths may carry, to all peers but those in `pins`.
    pub path: PathChoice,
    /// Which paths may carry to some peers.
    pub pins: Vec<(Ipv4Addr, PathChoice)>,
    /// What others see this machine as.
    pub name: String,
    /// `-secret`, if given.
    pub secret: Option<SecretString>,
    /// `-trans-key`, if given.
    pub trans_key: Option<[u8; 32]>,
}

impl GatewayOptions {
    /// Smallest outer packet: what IPv6 promises everywhere (RFC 8200 section 5).
    pub const MTU_MIN: u16 = 1280;

    /// What messages suggest.
    const MTU_EXAMPLE: u32 = 1400;

    /// Checks the settings.
    pub fn from_settings(settings: &Settings) -> Result<Self, Failure> {
        let common = CommonOptions::from_settings(settings)?;
        if common.token.is_empty() {
            return Err(Failure::Usage(
                "no token: give the transfer's with -token, -token-file or EASYMESH_TOKEN".into(),
            ));
        }
        let (ip, prefix) = parse_ip(settings.text("ip"))?;
        let mtu = match settings.text("mtu").parse::<u16>() {
            Ok(0) => None,
            Ok(mtu) if mtu >= Self::MTU_MIN => Some(mtu),
            _ => return Err(not_a_number("mtu", Self::MTU_MIN.into(), 65_535, Self::MTU_EXAMPLE)),
        };
        let (path, pins) = parse_path(settings.text("path"))?;
        Ok(Self {
            common,
            ip,
            prefix,
            path,
            pins,
            trans: parse_trans(settings.text("trans"))?,
            iface: settings.text("iface").to_owned(),
            iface_given: settings.origin("iface") != Origin::Default,
            cipher: settings.text("cipher").parse().map_err(Failure::Usage)?,
            mapping: settings.text("mapping").parse().map_err(Failure::Usage)?,
            mtu,
            offload: parse_offload(settings.text("offload"))?,
            name: parse_name(settings.text("name"))?,
            secret: Some(settings.secret("secret")?).filter(|secret| !secret.is_empty()),
            trans_key: parse_key(settings.text("trans-key"))?,
        })
    }
}

/// `auto` or `off`.
fn parse_offload(text: &str) -> Result<bool, Failure> {
    match text {
        "auto" => Ok(true),
        "off" => Ok(false),
        other => Err(Failure::Usage(format!("-offload {other} does not exist: give auto or off"))),
    }
}

/// `172.168.3.1`, or with another mask than the usual one `10.9.3.1/24`.
fn parse_ip(text: &str) -> Result<(Ipv4Addr, u8), Failure> {
    let wrong = |why: &str| Failure::Usage(format!("-ip {text} {why}: give a host's address such as 172.168.3.1"));
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let ip: Ipv4Addr = address.parse().map_err(|_| wrong("is not an IPv4 address"))?;
    let prefix = match prefix {
        None => PREFIX_DEFAULT,
        Some(bits) => bits
            .parse()
            .ok()
            .filter(|bits| (8..=30).contains(bits))
            .ok_or_else(|| wrong("has a mask outside /8../30"))?,
    };
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.octets()[0] == 0 || ip.octets()[0] >= 240 {
        return Err(wrong("is no address for a host"));
    }
    let host_bits = ip.to_bits() & (u32::MAX >> prefix);
    if host_bits == 0 || host_bits == u32::MAX >> prefix {
        return Err(wrong("is the network's own or its broadcast address"));
    }
    Ok((ip, prefix))
}

/// `HOST:PORT` of something that a datagram can be sent to.
fn parse_trans(text: &str) -> Result<HostPort, Failure> {
    let trans: HostPort = text.parse().map_err(|why| Failure::Usage(format!("-trans: {why}")))?;
    let Ok(address) = trans.host.parse::<IpAddr>() else { return Ok(trans) };
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(Failure::Usage(format!(
            "-trans: {text} is no address of one host: give the transfer's own, as in 203.0.113.10:{}",
            trans.port
        )));
    }
    Ok(trans)
}

/// `relay`, or with peers that are different `auto,172.168.3.2=relay,172.168.3.9=lan`.
fn parse_path(text: &str) -> Result<(PathChoice, Vec<(Ipv4Addr, PathChoice)>), Failure> {
    let choice = |word: &str| match word {
        "auto" => Ok(PathChoice::Auto),
        "relay" => Ok(PathChoice::Relay),
        "direct" => Ok(PathChoice::Direct),
        "lan" => Ok(PathChoice::Lan),
        _ => Err(Failure::Usage(format!(
            "-path: {word:?} is no path: give auto, relay, direct or lan, and for some peers as in -path auto,172.168.3.2=relay"
        ))),
    };
    let (mut all, mut pins) = (PathChoice::Auto, Vec::new());
    for (place, item) in text.split(',').map(str::trim).enumerate() {
        match item.split_once('=') {
            None if place == 0 => all = choice(item)?,
            None => {
                return Err(Failure::Usage(format!(
                    "-path: {item:?} names no peer: the path of all comes first, as in -path auto,172.168.3.2=relay"
                )));
            }
            Some((peer, path)) => {
                let ip = peer.trim().parse().map_err(|_| {
                    Failure::Usage(format!(
                        "-path: {peer:?} is no virtual address: give one as in -path auto,172.168.3.2=relay"
                    ))
                })?;
                pins.push((ip, choice(path.trim())?));
            }
        }
    }
    Ok((all, pins))
}

fn parse_name(text: &str) -> Result<String, Failure> {
    let given = !text.is_empty();
    let name = if given { text.to_owned() } else { crate::imp::host_name() };
    if given && (name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control)) {
        return Err(Failure::Usage(format!(
            "-name is longer than {NAME_BYTES_MAX} bytes or not printable: give a shorter one"
        )));
    }
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Ok(name[..end].chars().filter(|c| !c.is_control()).collect())
}

fn parse_key(text: &str) -> Result<Option<[u8; 32]>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let key = crate::hex::decode(text).ok_or_else(|| {
        Failure::Usage(
            "-trans-key is not a key of 64 hexadecimal digits: copy it from the transfer's first lines".into(),
        )
    })?;
    Ok(Some(key))
}

/// An error that the operating system caused, as one line with its remedy.
pub(crate) fn trouble(what: impl std::fmt::Display, error: &std::io::Error, remedy: &str) -> anyhow::Error {
    anyhow!("{what}: {error}: {remedy}")
}

/// The same for a directory that cannot be made or used; `File exists` does not tell that a file is in its place.
pub(crate) fn directory_trouble(what: &str, directory: &Path, error: &std::io::Error, remedy: &str) -> anyhow::Error {
    let what = format!("{what} {}", directory.display());
    match directory.exists() && !directory.is_dir() {
        true => anyhow!("{what}: it is no directory: {remedy}"),
        false => trouble(what, error, remedy),
    }
}

#[cfg(test)]
mod tests;
