//! What a machine keeps between runs: keys, in files that only their owner can read.
//!
//! Each identity has a file of its own (`gateway-NAMESPACE-ADDRESS.key`, `transfer-PORT.key`) and beside it a `.lock` that is held
//! for as long as the program runs, so that two programs never share a key. Files are replaced whole and synced: a power cut
//! leaves the old or the new one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mesh_core::session::PublicKey;
use mesh_core::session::handshake::StaticKey;
use zeroize::Zeroizing;

use crate::config::{directory_trouble, trouble};
use crate::resolve::HostPort;
use crate::{hex, imp};

/// How long a lock may outlive its holder: a killed process keeps its files until the kernel has torn it down.
const LOCK_PATIENCE: Duration = Duration::from_millis(1500);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// No key file is longer, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// First line of every file.
const HEADLINE: &str = "EasyMesh keys, version 1. Whoever has this file can pose as this machine.";

/// The directory where keys are kept.
#[derive(Clone, Debug)]
pub struct StateDirectory(PathBuf);

impl StateDirectory {
    /// Where it is: `given` by `-state`, else systemd's `STATE_DIRECTORY`, else the machine's (root) or the user's, if there is one.
    pub(crate) fn place(given: Option<&Path>) -> Option<PathBuf> {
        // systemd may name several directories, separated by colons.
        let by_systemd = std::env::var("STATE_DIRECTORY").ok();
        let by_systemd = by_systemd.as_deref().and_then(|all| all.split(':').next()).filter(|path| !path.is_empty());
        given.map(Path::to_owned).or_else(|| by_systemd.map(PathBuf::from)).or_else(imp::state_directory)
    }

    /// `given` by `-state`, else systemd's `STATE_DIRECTORY`, else the machine's (root) or the user's. Made if it is missing.
    pub fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let directory = Self::place(given)
            .context("no place for keys: neither HOME nor XDG_STATE_HOME is set: give a directory with -state")?;
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&directory).map_err(|error| {
            directory_trouble("cannot keep keys in", &directory, &error, "give another directory with -state")
        })?;
        Ok(Self(directory))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The identity of a gateway, made at the first use.
    pub fn gateway(&self, namespace: u16, ip: Ipv4Addr) -> anyhow::Result<GatewayIdentity> {
        let name = format!("gateway-{namespace}-{ip}");
        let lock = self.lock(&name, || {
            format!(
                "another gateway on this host is {ip} in namespace {namespace} already (its keys are in {}): \
                 stop it, choose another -ip, or give this one its own -state directory",
                self.0.display()
            )
        })?;
        let [key] = self.keys(&name, ["x25519"])?;
        Ok(GatewayIdentity { static_key: StaticKey::from_seed(*key), _lock: lock })
    }

    /// The identity of a transfer, made at the first use.
    pub fn transfer(&self, bind: u16) -> anyhow::Result<TransferIdentity> {
        let name = format!("transfer-{bind}");
        let lock = self.lock(&name, || {
            format!(
                "another transfer on this host starts at port {bind} already (its keys are in {}): \
                 stop it, choose another -bind, or give this one its own -state directory",
                self.0.display()
            )
        })?;
        let [key, ticket_key] = self.keys(&name, ["x25519", "ticket"])?;
        Ok(TransferIdentity { static_key: StaticKey::from_seed(*key), ticket_key, _lock: lock })
    }

    /// Where the key of a transfer is kept.
    pub fn pin_path(&self, transfer: &HostPort) -> PathBuf {
        // Names of hosts are letters, digits, dots and dashes; whatever else someone types must not leave the directory.
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        self.0.join(format!("pinned-{}-{}", transfer.host.chars().map(plain).collect::<String>(), transfer.port))
    }

    /// The key that a transfer showed first, if it ever did.
    pub fn pinned_transfer(&self, transfer: &HostPort) -> anyhow::Result<Option<PublicKey>> {
        let path = self.pin_path(transfer);
        match read(&path) {
            Ok(text) => hex::decode(text.trim_end()).map(Some).with_context(|| {
                format!("{} is damaged: restore it, or delete it to trust the transfer anew", path.display())
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(trouble(format_args!("cannot read {}", path.display()), &error, "make it readable, or delete it"))
            }
        }
    }

    /// Keeps the key that a transfer shows.
    pub fn pin_transfer(&self, transfer: &HostPort, key: &PublicKey) -> anyhow::Result<()> {
        if self.pinned_transfer(transfer)? == Some(*key) {
            return Ok(());
        }
        let path = self.pin_path(transfer);
        replace(&path, format!("{}\n", hex::encode(key)).as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Takes the lock of an identity; `taken` says whose it is.
    fn lock(&self, name: &str, taken: impl FnOnce() -> String) -> anyhow::Result<File> {
        let path = self.0.join(format!("{name}.lock"));
        let file = private().write(true).create(true).truncate(false).open(&path).map_err(|error| {
            trouble(format_args!("cannot open {}", path.display()), &error, "give another directory with -state")
        })?;
        let mut waited = Duration::ZERO;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if waited < LOCK_PATIENCE => {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a lock that is given back tells no one who polls for it"
                    )]
                    thread::sleep(LOCK_RETRY);
                    waited += LOCK_RETRY;
                }
                Err(TryLockError::WouldBlock) => bail!(taken()),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
    }

    /// Reads the keys of these labels, or makes them. The lock is held.
    fn keys<const N: usize>(&self, name: &str, labels: [&str; N]) -> anyhow::Result<[Zeroizing<[u8; 32]>; N]> {
        let path = self.0.join(format!("{name}.key"));
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let keys = labels.map(|_| Zeroizing::new(rand::random::<[u8; 32]>()));
                let mut text = Zeroizing::new(format!("{HEADLINE}\n"));
                for (label, key) in labels.iter().zip(&keys) {
                    text.push_str(label);
                    text.push(' ');
                    text.push_str(&Zeroizing::new(hex::encode(key.as_slice())));
                    text.push('\n');
                }
                replace(&path, text.as_bytes()).map_err(|error| {
                    trouble(
                        format_args!("cannot write {}", path.display()),
                        &error,
                        "give another directory with -state",
                    )
                })?;
                return Ok(keys);
            }
            Err(error) => {
                return Err(trouble(
                    format_args!("cannot read {}", path.display()),
                    &error,
                    "make it readable, or delete it for a new key",
                ));
            }
        };
        parse(&text, labels)
            .with_context(|| format!("{} is damaged: restore it, or delete it for a new key", path.display()))
    }
}

/// What makes a gateway itself; nobody else on this host has it while this lives.
#[derive(Debug)]
pub struct GatewayIdentity {
    /// The key that peers and transfers know it by.
    pub static_key: StaticKey,
    _lock: File,
}

/// What makes a transfer itself; nobody else on this host has it while this lives.
pub struct TransferIdentity {
    /// The key that gateways pin.
    pub static_key: StaticKey,
    /// Seals the tickets of leases.
    pub ticket_key: Zeroizing<[u8; 32]>,
    _lock: File,
}

fn private() -> OpenOptions {
    #[cfg(unix)]
    return std::os::unix::fs::OpenOptionsExt::mode(&mut OpenOptions::new(), 0o600).clone();
    #[cfg(not(unix))]
    OpenOptions::new()
}

fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too long for a key file"));
    }
    fs::read_to_string(path).map(Zeroizing::new)
}

fn parse<const N: usize>(text: &str, labels: [&str; N]) -> Option<[Zeroizing<[u8; 32]>; N]> {
    let mut lines = text.lines();
    lines.next().filter(|line| *line == HEADLINE)?;
    let mut keys = std::array::from_fn(|_| Zeroizing::new([0; 32]));
    for (label, key) in labels.iter().zip(&mut keys) {
        *key = Zeroizing::new(hex::decode(lines.next()?.strip_prefix(label)?.strip_prefix(' ')?)?);
    }
    // A file of zeros is what a crash of some file systems leaves.
    (lines.next().is_none() && keys.iter().all(|key| **key != [0; 32])).then_some(keys)
}

/// Replaces a file whole, or leaves it as it was.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("part");
    let mut file = private().write(true).create(true).truncate(true).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    // The name itself is safe only when its directory is.
    #[cfg(unix)]
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, StateDirectory) {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(Some(&directory.path().join("made/here"))).unwrap();
        (directory, state)
    }

    const IP: Ipv4Addr = Ipv4Addr::new(172, 168, 3, 1);

    #[test]
    fn an_identity_is_made_once_and_found_again() {
        let (_keep, state) = directory();
        let first = *state.gateway(8000, IP).unwrap().static_key.public();
        assert_eq!(*state.gateway(8000, IP).unwrap().static_key.public(), first);
        assert_ne!(*state.gateway(8001, IP).unwrap().static_key.public(), first, "one key for each namespace");
        assert_ne!(*state.gateway(8000, Ipv4Addr::new(172, 168, 3, 2)).unwrap().static_key.public(), first);
        let (one, two) =
            (state.transfer(8000).map(|t| t.ticket_key).unwrap(), state.transfer(8000).unwrap().ticket_key);
        assert_eq!(one, two);
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_a_key() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_keep, state) = directory();
        drop(state.gateway(8000, IP).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state.path().join("gateway-8000-172.168.3.1.key")), 0o600);
        assert_eq!(mode(state.path()), 0o700);
        assert!(!state.path().join("gateway-8000-172.168.3.1.part").exists());
    }

    #[test]
    fn a_second_user_of_an_identity_is_refused_by_name() {
        let (_keep, state) = directory();
        let held = state.gateway(8000, IP).unwrap();
        let why = state.gateway(8000, IP).unwrap_err().to_string();
        assert!(why.contains("is 172.168.3.1 in namespace 8000 already"), "{why}");
        drop(held);
        state.gateway(8000, IP).unwrap();
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it_and_stays() {
        let (_keep, state) = directory();
        drop(state.gateway(8000, IP).unwrap());
        let path = state.path().join("gateway-8000-172.168.3.1.key");
        let good = fs::read_to_string(&path).unwrap();
        let key = good.lines().nth(1).unwrap();
        let zeros = format!("{HEADLINE}\nx25519 {}\n", "0".repeat(64));
        for bad in [
            "",
            HEADLINE,
            &good[..good.len() - 3],
            &good.replace("x25519", "x448"),
            &format!("{good}{key}\n"),
            &zeros,
            &"x".repeat(5000),
        ] {
            fs::write(&path, bad).unwrap();
            let why = format!("{:#}", state.gateway(8000, IP).unwrap_err());
            assert!(why.contains("gateway-8000-172.168.3.1.key"), "{why}");
            assert!(!why.contains(&key[7..20]), "the error shows the key");
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn a_transfers_key_is_kept_by_its_name() {
        let (_keep, state) = directory();
        let (one, two): (HostPort, HostPort) =
            ("a.example:8000".parse().unwrap(), "[2001:db8::1]:8000".parse().unwrap());
        assert_eq!(state.pinned_transfer(&one).unwrap(), None);
        state.pin_transfer(&one, &[7; 32]).unwrap();
        assert_eq!(state.pinned_transfer(&one).unwrap(), Some([7; 32]));
        assert_eq!(state.pinned_transfer(&two).unwrap(), None);
        fs::write(state.pin_path(&one), "x").unwrap();
        assert!(state.pinned_transfer(&one).unwrap_err().to_string().contains("is damaged"));
        let odd = HostPort { host: "../../etc/passwd".into(), port: 1 };
        assert_eq!(state.pin_path(&odd).parent(), Some(state.path()));
    }

    #[test]
    fn a_place_that_cannot_be_made_is_named_with_the_remedy() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let why = StateDirectory::open(Some(&file.path().join("x"))).unwrap_err().to_string();
        assert!(why.contains("cannot keep keys in") && why.ends_with("-state"), "{why}");
    }
}
