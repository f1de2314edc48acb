//! `cargo xtask demo`: the deployment walkthrough on one machine.
//!
//! A transfer and two gateways, started with the command lines of the README on three hosts in namespaces private to this run;
//! pings both ways, the virtual interface, and a copy through the tunnel with its rate. Nothing outlives it.
#![expect(clippy::print_stdout, reason = "a demo is for reading")]

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("The demo needs network namespaces: it runs on Linux only.");
    std::process::exit(1);
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::net::{IpAddr, Ipv4Addr};
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;
    use std::time::Duration;

    use anyhow::{Context as _, Result, bail, ensure};
    use mesh_lab::{Host, Lab, Ping, Process, tcp_copy};

    /// The token of the README, in full: what a shell passes on from single quotes.
    const TOKEN: &str = "s^I^ghGjkB7Zm$q14NWhxfQdS5E&FG7R";
    const FIRST: Ipv4Addr = Ipv4Addr::new(172, 168, 3, 1);
    const SECOND: Ipv4Addr = Ipv4Addr::new(172, 168, 3, 2);
    const COPY_BYTES: u64 = 200_000_000;
    const START: Duration = Duration::from_secs(20);

    struct Options {
        transfer: PathBuf,
        gateway: PathBuf,
        engine: Option<String>,
        keep: bool,
    }

    pub(crate) fn main() -> ExitCode {
        match options().and_then(|options| {
            mesh_lab::pass_interrupts_on()?;
            mesh_lab::enter()?;
            demo(&options)
        }) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("demo: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn options() -> Result<Options> {
        let mut arguments = std::env::args_os().skip(1);
        let (mut transfer, mut gateway, mut engine, mut keep) = (None, None, None, false);
        while let Some(argument) = arguments.next() {
            let text = argument.to_string_lossy().into_owned();
            let mut value = || arguments.next().with_context(|| format!("{text} needs a value"));
            match text.as_str() {
                "--transfer" => transfer = Some(PathBuf::from(value()?)),
                "--gateway" => gateway = Some(PathBuf::from(value()?)),
                "--engine" => engine = Some(value()?.to_string_lossy().into_owned()),
                "--keep" => keep = true,
                _ => bail!("{text} is no option; there are --transfer FILE --gateway FILE --engine NAME --keep"),
            }
        }
        Ok(Options {
            transfer: absolute(transfer.context("--transfer FILE is missing")?)?,
            gateway: absolute(gateway.context("--gateway FILE is missing")?)?,
            engine,
            keep,
        })
    }

    /// The programs are started in another folder.
    fn absolute(program: PathBuf) -> Result<PathBuf> {
        program.canonicalize().with_context(|| format!("there is no program {}", program.display()))
    }

    fn demo(options: &Options) -> Result<()> {
        let lab = Lab::new("demo")?;
        let cloud = lab.host("cloud")?;
        let (office, home) = (lab.host("office")?, lab.host("home")?);
        office.check_tun()?;
        let _lan = lab.lan(&[&cloud, &office, &home], &["192.0.2.0/24"])?;
        let address = cloud.ipv4()?;
        println!("Three hosts: cloud ({address}), office ({}), home ({})\n", office.ipv4()?, home.ipv4()?);
        for host in [&cloud, &office, &home] {
            host.set_name("you.domain.com", address)?;
        }

        let line = ["-public", "you.domain.com", "-bind", "8000", "-nums", "1000", "-token", TOKEN];
        let mut transfer = start(options, &cloud, &options.transfer, &line)?;
        transfer.wait_for_line("join with", START).context("the transfer did not start")?;
        let mut gateways = Vec::new();
        for (host, ip) in [(&office, FIRST), (&home, SECOND)] {
            let ip = ip.to_string();
            let line = ["-ip", &ip, "-trans", "you.domain.com:8000", "-iface", "eth0", "-token", TOKEN];
            gateways.push(start(options, host, &options.gateway, &line)?);
        }
        for gateway in &mut gateways {
            gateway.wait_for_line("registered", START).context("a gateway did not register")?;
        }

        for (host, to) in [(&home, FIRST), (&office, SECOND)] {
            println!("\n[{}] ping {to}", host.name());
            let report = host.ping(IpAddr::V4(to), Ping { count: 5, ..Ping::default() })?;
            println!("{report}");
            ensure!(report.perfect(), "not every ping was answered");
        }

        println!("\n[home] ip addr show mesh0");
        let interfaces = home.list_interfaces()?;
        let mesh = interfaces.iter().find(|interface| interface.name == "mesh0").context("home has no mesh0")?;
        println!("{mesh}");

        println!("\n[home -> office] {} MB by TCP", COPY_BYTES / 1_000_000);
        println!("{}", tcp_copy(&home, &office, IpAddr::V4(FIRST), COPY_BYTES, 1)?);

        println!("\n[home] gateway status");
        let mut status = home.command(&options.gateway);
        status.arg("status");
        let output = status.output().context("run gateway status")?;
        println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "gateway status failed");

        if options.keep {
            keep(&[&cloud, &office, &home])?;
        }
        for gateway in &mut gateways {
            ensure!(gateway.terminate(START)?.success(), "a gateway did not stop cleanly:\n{}", gateway.output());
        }
        ensure!(
            home.list_interfaces()?.iter().all(|interface| interface.name != "mesh0"),
            "mesh0 is still there after its gateway stopped"
        );
        ensure!(transfer.terminate(START)?.success(), "the transfer did not stop cleanly:\n{}", transfer.output());
        println!("\nAll stopped; nothing is left behind.");
        Ok(())
    }

    /// Starts a program with a command line of the README, as printed, and prints it.
    fn start(options: &Options, host: &Host, program: &Path, line: &[&str]) -> Result<Process> {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let quoted: Vec<String> =
            line.iter().map(|word| if *word == TOKEN { format!("'{word}'") } else { (*word).to_owned() }).collect();
        println!("[{}] ./{name} {}", host.name(), quoted.join(" "));
        let mut command = host.command(program);
        command.args(line);
        // Its log files go to the host's own state folder, which ends with it.
        command.current_dir("/").env("EASYMESH_LOG", "/run/state");
        if let Some(engine) = &options.engine {
            command.env("EASYMESH_ENGINE", engine);
        }
        host.spawn(command)
    }

    /// Tells how to step into each host and waits for the end.
    fn keep(hosts: &[&Host]) -> Result<()> {
        println!("\nThe mesh stays up. Step into a host from another terminal:");
        for host in hosts {
            println!("  {:8} {}", host.name(), host.step_in()?);
        }
        println!("Ctrl-C ends it.");
        wait_for_interrupt()
    }

    fn wait_for_interrupt() -> Result<()> {
        use nix::sys::signal::{SigSet, Signal};
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block().context("block the signals that end the demo")?;
        signals.wait().context("wait for a signal")?;
        Ok(())
    }
}
