//! The whole experiment, as a run drives it.

use std::time::Duration;

use anyhow::{Result, bail};
use bench::report::{Absent, SystemInfo};
use bench::rounds::Experiment as _;
use bench::tunnel::trial::{HEADLINE, figures};
use bench::tunnel::{Chosen, Found, Lengths, Rig, Tunnel, TunnelBench, TunnelCell, TunnelSystem, systems};
use mesh_lab::isolated;

use crate::loads::SHORT;

const LENGTHS: Lengths = Lengths { warm: Duration::from_millis(50), time: SHORT, control: SHORT };

/// A system that prints why it does not start, and ends.
struct Broken;

impl TunnelSystem for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn find(&self) -> Result<Found> {
        Ok(Ok(SystemInfo { name: "broken".into(), version: String::new(), ours: false, about: String::new() }))
    }

    fn unable(&self, cell: &TunnelCell) -> Option<String> {
        (cell.path == bench::tunnel::Path::Direct).then(|| "it is broken".into())
    }

    fn start(&self, rig: &Rig, _cell: &TunnelCell) -> Result<Tunnel> {
        let mut command = rig.command(bench::tunnel::Place::Left, "sh");
        command.args(["-c", "echo no key; exit 3"]);
        let processes = vec![rig.left.spawn(command)?];
        Ok(Tunnel { left: Rig::LEFT, right: Rig::RIGHT, processes, relay: None })
    }
}

/// A system that is not installed.
struct Missing;

impl TunnelSystem for Missing {
    fn name(&self) -> &'static str {
        "missing"
    }

    fn find(&self) -> Result<Found> {
        Ok(Err(Absent { name: "missing".into(), how: "buy it".into() }))
    }

    fn unable(&self, _cell: &TunnelCell) -> Option<String> {
        None
    }

    fn start(&self, _rig: &Rig, _cell: &TunnelCell) -> Result<Tunnel> {
        bail!("it is not there")
    }
}

#[test]
fn a_run_measures_who_is_able_and_names_who_is_not() {
    isolated(|| {
        let cells = TunnelCell::select(
            "relayed-tcp8-cubic-veth,relayed-udp64-wire,direct-ping-veth,direct-bulkping-cubic-veth-1380",
        )?;
        let mut systems = systems::all();
        systems.retain(|system| system.name() == systems::CONTROL);
        systems.extend([Box::new(Broken) as Box<dyn TunnelSystem>, Box::new(Missing)]);
        let chosen = Chosen::find(systems)?;
        assert_eq!(chosen.absent.iter().map(|absent| absent.name.as_str()).collect::<Vec<_>>(), ["missing"]);
        let mut bench = TunnelBench::new(cells.clone(), chosen, LENGTHS);
        let known: Vec<String> = figures().into_iter().map(|figure| figure.key).collect();
        for (number, (info, cell)) in bench.cells().into_iter().zip(&cells).enumerate() {
            assert_eq!(info.name, cell.to_string());
            let lineup = bench.open(number)?;
            assert_eq!(lineup.able, ["raw"]);
            if cell.path == bench::tunnel::Path::Direct {
                assert_eq!(lineup.unable, [("broken".to_owned(), "it is broken".to_owned())]);
            } else {
                let [(name, why)] = &lineup.failed[..] else { panic!("{lineup:?}") };
                assert!(name == "broken" && why.contains("exit status: 3") && why.contains("no key"), "{why}");
            }
            assert!(bench.control(number)? > 0.0);
            for round in 1..=2 {
                let trial = bench.trial(number, "raw", round)?;
                assert!(trial.measures[HEADLINE] > 0.0, "{trial:?}");
                assert!(trial.measures.contains_key(cell.headline()), "{trial:?}");
                assert!(trial.measures.keys().all(|key| known.contains(key)), "{trial:?}");
            }
            assert!(bench.trial(number, "broken", 1).is_err());
            bench.close(number);
        }
        Ok(())
    });
}
