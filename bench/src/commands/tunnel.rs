//! `bench tunnel`: tunnels side by side.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use bench::report::Report;
use bench::tunnel::trial::{self, HEADLINE};
use bench::tunnel::{Chosen, Lengths, TunnelBench, TunnelCell, TunnelSystem, cell, systems};

use super::Usage;
use super::options::Selection;
use super::session::{self, Ends};

/// Rounds in a cell.
const ROUNDS: u32 = 5;

const ABOUT: &str = "Two hosts with a router between them, and each of several tunnels from one to the other: directly, or through a \
relay on the router. Everything is shown as a ratio within a round, because a shared machine is faster in one minute and slower in the \
next.\n\nA ratio above 1 means: better than the reference. Both ends, the relay and the load share the cores of one machine, so \
absolute rates are those of this machine, not of a network card; the row without a tunnel shows what is left to lose.";

/// Runs it.
pub(crate) fn run(options: &Selection) -> Result<ExitCode> {
    if options.systems == ["list"] {
        systems::all().iter().for_each(|system| println!("{}", system.name()));
        return Ok(ExitCode::SUCCESS);
    }
    let named = |names: &[&str]| names.iter().map(|name| name.parse()).collect::<Result<Vec<TunnelCell>>>();
    let cells = match &options.cells {
        Some(expression) => TunnelCell::select(expression).map_err(|error| Usage::of(&error))?,
        None if options.matrix => TunnelCell::matrix(),
        None if options.quick => named(&cell::QUICK)?,
        None => named(&cell::DEFAULT)?,
    };
    let wanted = wanted(options)?;
    let [warm, time, control] =
        if options.quick { [200, 700, 300] } else { [250, 1_200, 400] }.map(Duration::from_millis);
    let lengths = Lengths { warm, time, control };
    let rounds = options.rounds.unwrap_or(ROUNDS);
    if options.matrix && !mesh_lab::inside() {
        let trials = cells.len() as f64 * f64::from(rounds) * (wanted.len() as f64 + 2.0);
        let hours = trials * (warm + time).as_secs_f64() / 3600.0;
        eprintln!("{} cells, {} systems at most: about {hours:.1} hours", cells.len(), wanted.len());
    }
    let stop = session::enter()?;
    let chosen = Chosen::find(wanted)?;
    let mut report =
        Report { figures: trial::figures(), ..session::blank(("tunnel", "Tunnels side by side", ABOUT, HEADLINE)) };
    report.settings.splice(0..0, trial::settings(&lengths));
    report.systems = chosen.present.iter().map(|(_, info)| info.clone()).collect();
    report.absent.clone_from(&chosen.absent);
    let mut bench = TunnelBench::new(cells, chosen, lengths);
    let name = if options.matrix { "tunnel-matrix" } else { "tunnel" };
    let resume = options.matrix && !options.restart;
    let ends = Ends { name: name.into(), resume, json: options.json, report: options.report.as_deref() };
    session::measure(&mut bench, report, (rounds, systems::REFERENCE), &stop, &ends)
}

fn wanted(options: &Selection) -> Result<Vec<Box<dyn TunnelSystem>>> {
    let mut all = systems::all();
    let known: Vec<&str> = all.iter().map(|system| system.name()).collect();
    for name in &options.systems {
        if !known.contains(&name.as_str()) {
            return Err(Usage(format!("no system {name:?}; there are {}", known.join(", "))).into());
        }
    }
    all.retain(|system| {
        let name = system.name();
        match &options.systems[..] {
            [] => !options.quick || systems::QUICK_SYSTEMS.contains(&name),
            chosen => chosen.iter().any(|wanted| wanted == name),
        }
    });
    Ok(all)
}
