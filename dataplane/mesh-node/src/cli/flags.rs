//! The flags of both programs, in one table each: parser, usage text, environment and file all read it.
//!
//! The first part of each table is the interface of the first EasyMesh, with its words and defaults; it does not change.

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A decimal number.
    Int,
    /// Text.
    Text,
    /// Nothing, or `=true` / `=false`.
    Bool,
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name without dashes; in the environment `EASYMESH_` and the name in capitals with `_` for `-`.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The value without the flag; empty text, `0` and `false` are not shown in the usage text.
    pub default: &'static str,
    /// One line for the usage text.
    pub help: &'static str,
}

impl Flag {
    const fn int(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Int, default, help }
    }

    const fn text(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Text, default, help }
    }

    const fn switch(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Bool, default: "false", help }
    }

    /// The name of its environment variable.
    pub fn variable(&self) -> String {
        format!("EASYMESH_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

/// The flags whose values nobody may see.
pub const SECRETS: [&str; 2] = ["token", "secret"];

/// Which of the two programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The relay.
    Transfer,
    /// The member of a virtual network.
    Gateway,
}

impl Program {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::Gateway => "gateway",
        }
    }

    /// The flags of the first EasyMesh, in the order its usage text prints them.
    pub fn seed_flags(self) -> &'static [Flag] {
        match self {
            Self::Transfer => TRANSFER_SEED,
            Self::Gateway => GATEWAY_SEED,
        }
    }

    /// The flags that came after.
    pub fn added_flags(self) -> &'static [Flag] {
        match self {
            Self::Transfer => TRANSFER_ADDED,
            Self::Gateway => GATEWAY_ADDED,
        }
    }

    /// The flags of the verb `status`.
    pub fn status_flags(self) -> &'static [Flag] {
        match self {
            Self::Transfer => TRANSFER_STATUS,
            Self::Gateway => GATEWAY_STATUS,
        }
    }

    /// All flags of a run.
    pub fn run_flags(self) -> Vec<Flag> {
        [self.seed_flags(), self.added_flags()].concat()
    }
}

const DEBUG: Flag = Flag::switch("debug", "debug mode");
const HELP: Flag = Flag::switch("help", "usage");
const LOG: Flag = Flag::text("log", "./", "log dir");
const TOKEN: Flag = Flag::text("token", "", "access auth");

const CONFIG: Flag = Flag::text("config", "", "TOML file with the flags' names as keys");
const ENGINE: Flag = Flag::text("engine", "auto", "what moves the datagrams: auto, uring, mmsg or portable");
const STATE: Flag = Flag::text("state", "", "directory of the keys this machine keeps (empty: the system's place)");
const TOKEN_FILE: Flag = Flag::text("token-file", "", "file that holds the token, so that no process listing shows it");

const TRANSFER_SEED: &[Flag] = &[
    Flag::int("bind", "8000", "transfer server bind port"),
    DEBUG,
    HELP,
    LOG,
    Flag::int("nums", "1000", "transfer server instance nums"),
    Flag::text("public", "www.domain.com", "public IP"),
    TOKEN,
];

const TRANSFER_ADDED: &[Flag] = &[
    CONFIG,
    ENGINE,
    Flag::text(
        "spread",
        "",
        "ports that all processors serve together, as in 8000,8001, or all (empty: one processor each)",
    ),
    STATE,
    TOKEN_FILE,
];

const GATEWAY_SEED: &[Flag] = &[
    DEBUG,
    HELP,
    Flag::text("iface", "eth0", "interface or ip"),
    Flag::text("ip", "172.168.0.1", "virtual ip"),
    LOG,
    TOKEN,
    Flag::text("trans", "www.domain.com:8000", "transfer public address"),
];

const GATEWAY_ADDED: &[Flag] = &[
    Flag::text("cipher", "auto", "what packets are sealed with: auto (the faster one), aes or chacha"),
    CONFIG,
    ENGINE,
    Flag::text("mapping", "auto", "whether to ask the router for a port (PCP, NAT-PMP, UPnP): auto or off"),
    Flag::int("mtu", "0", "largest IP packet the network outside carries, in bytes (0: found out)"),
    Flag::text("name", "", "name other members see (empty: the host's name)"),
    Flag::text(
        "offload",
        "auto",
        "whether the system leaves segments and checksums to the virtual interface: auto or off",
    ),
    Flag::text("path", "auto", "paths to peers: auto, relay, direct or lan; auto,172.168.3.2=relay for some peers"),
    Flag::text("secret", "", "second password that only gateways know, so that the transfer cannot sit in the middle"),
    Flag::text("secret-file", "", "file that holds the secret"),
    STATE,
    TOKEN_FILE,
    Flag::text("trans-key", "", "public key of the transfer in hexadecimal (empty: the first one seen is kept)"),
];

const JSON: Flag = Flag::switch("json", "print JSON");
const WATCH: Flag = Flag::switch("watch", "print again each second");

const TRANSFER_STATUS: &[Flag] = &[Flag::int("bind", "0", "only the transfer with this first port"), HELP, JSON, WATCH];

const GATEWAY_STATUS: &[Flag] =
    &[HELP, Flag::text("ip", "", "only the gateway with this virtual address"), JSON, WATCH];
