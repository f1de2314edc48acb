//! A switch with a cloud host and offices on it, and the programs started there by the command lines of the README.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mesh_lab::{Host, Lab, Lan, Ping, Process};
use serde_json::Value;

pub(crate) const TOKEN: &str = "s^I^ghGjkB7Zm$q14NWhxfQdS5E&FG7R";
pub(crate) const NAME: &str = "you.domain.com";
pub(crate) const START: Duration = Duration::from_secs(20);

/// One ping that has a second.
pub(crate) const ONE: Ping =
    Ping { count: 1, interval: Duration::ZERO, timeout: Duration::from_secs(1), size: 56, dont_fragment: false };

/// Where the release programs are.
pub(crate) fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("EASYMESH_PROGRAMS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/release"), PathBuf::from);
    let program = folder.join(name);
    assert!(program.exists(), "{} is missing: cargo build --release", program.display());
    program
}

/// The virtual address of gateway `number`, from 0.
pub(crate) fn ip(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(172, 168, 3, u8::try_from(number + 1).expect("a few dozen gateways"))
}

/// A lab with a cloud host and `offices` others on one switch; everyone knows the cloud by name.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    pub(crate) cloud: Host,
    pub(crate) offices: Vec<Host>,
    pub(crate) lan: Lan,
}

impl Site {
    pub(crate) fn new(name: &str, offices: usize) -> Result<Self> {
        let lab = Lab::new(name)?;
        let cloud = lab.host("cloud")?;
        let offices: Vec<Host> =
            (0..offices).map(|number| lab.host(&format!("office{number}"))).collect::<Result<_>>()?;
        let everyone: Vec<&Host> = std::iter::once(&cloud).chain(&offices).collect();
        let lan = lab.lan(&everyone, &["192.0.2.0/24"])?;
        let address = cloud.ipv4()?;
        for host in &everyone {
            host.set_name(NAME, address)?;
        }
        Ok(Self { lab, cloud, offices, lan })
    }

    /// Starts `transfer` with the walkthrough's command line, `nums` ports and more flags.
    pub(crate) fn transfer(&self, nums: &str, more: &[&str]) -> Result<Process> {
        let mut process = self.start_transfer(nums, more)?;
        process.wait_for_line("join with", START).context("the transfer did not start")?;
        Ok(process)
    }

    /// The same without waiting.
    pub(crate) fn start_transfer(&self, nums: &str, more: &[&str]) -> Result<Process> {
        let line = ["-public", NAME, "-bind", "8000", "-nums", nums, "-token", TOKEN];
        start(&self.cloud, "transfer", &[&line, more].concat())
    }

    /// Starts gateway `number` on its office and waits until it is registered.
    pub(crate) fn gateway(&self, number: usize, more: &[&str]) -> Result<Process> {
        let mut process = self.start_gateway(number, more)?;
        process.wait_for_line("registered", START).with_context(|| format!("gateway {number} did not register"))?;
        Ok(process)
    }

    /// The same without waiting. All are on one switch: so that there is something for the relay to do, it alone is to carry, unless
    /// `more` names the paths.
    pub(crate) fn start_gateway(&self, number: usize, more: &[&str]) -> Result<Process> {
        let relay: &[&str] = if more.contains(&"-path") { &[] } else { &["-path", "relay"] };
        start_gateway(&self.offices[number], number, &[more, relay].concat())
    }

    /// Pings gateway `to` from office `from`.
    pub(crate) fn ping(&self, from: usize, to: usize, ping: Ping) -> Result<mesh_lab::PingReport> {
        self.offices[from].ping(IpAddr::V4(ip(to)), ping)
    }

    /// Pings until one is answered, at most `limit`; how long that took.
    pub(crate) fn ping_until_answered(&self, from: usize, to: usize, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        let quick = Ping { timeout: Duration::from_millis(100), ..ONE };
        while start.elapsed() < limit {
            if self.ping(from, to, quick)?.perfect() {
                return Ok(start.elapsed());
            }
        }
        bail!("no answer within {limit:?}")
    }
}

/// Starts gateway `number` on a host by the walkthrough's command line and more flags.
pub(crate) fn start_gateway(host: &Host, number: usize, more: &[&str]) -> Result<Process> {
    let ip = ip(number).to_string();
    let line = ["-ip", ip.as_str(), "-trans", "you.domain.com:8000", "-iface", "eth0", "-token", TOKEN];
    start(host, "gateway", &[&line, more].concat())
}

/// Starts one of our programs on a host; its log files go to the host's own folder, which ends with it.
pub(crate) fn start(host: &Host, name: &str, line: &[&str]) -> Result<Process> {
    let mut command = host.command(program(name));
    command.args(line).current_dir("/").env_remove("EASYMESH_PROGRAMS").env("EASYMESH_LOG", "/run/state");
    host.spawn(command)
}

/// `status --json` of the program that runs on a host.
pub(crate) fn status(host: &Host, name: &str) -> Result<Value> {
    let output = host.command(program(name)).args(["status", "--json"]).env_remove("EASYMESH_PROGRAMS").output()?;
    ensure!(output.status.success(), "{name} status: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("status --json is not JSON")
}

/// Looks at a status until `good` says yes.
pub(crate) fn status_until(host: &Host, name: &str, limit: Duration, good: impl Fn(&Value) -> bool) -> Result<Value> {
    let start = Instant::now();
    loop {
        let status = status(host, name)?;
        if good(&status) {
            return Ok(status);
        }
        ensure!(start.elapsed() < limit, "within {limit:?} the status did not get there: {status:#}");
    }
}

/// Healthy programs have logged nothing worse than INFO.
pub(crate) fn assert_quiet(process: &Process) {
    let output = process.output();
    let loud: Vec<&str> = output.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR")).collect();
    assert!(loud.is_empty(), "a healthy run warned: {loud:#?}");
}

/// Copies a host's state folder to another, as cloning or moving a machine does.
pub(crate) fn copy_state(from: &Host, to: &Host) -> Result<()> {
    let files = from.run(|| files_below(std::path::Path::new("/run/state")))?;
    to.run(|| write_files(files))
}

fn write_files(files: Vec<(PathBuf, Vec<u8>)>) -> Result<()> {
    for (path, bytes) in files {
        std::fs::create_dir_all(path.parent().expect("a file has a folder"))?;
        std::fs::write(&path, bytes)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    Ok(())
}

fn files_below(folder: &std::path::Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else if path.extension().is_none_or(|extension| extension != "log") {
            files.push((path.clone(), std::fs::read(&path)?));
        }
    }
    Ok(files)
}
