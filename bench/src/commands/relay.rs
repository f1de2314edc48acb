//! `bench relay` and `bench latency`: relays side by side.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};

use mesh_lab::LinkMode;

use bench::cost::Events;
use bench::figure::Figure;
use bench::relay::crowd::Crowd;
use bench::relay::experiment::{self, Allowed, Lengths, RelayBench};
use bench::relay::latency::{self, LatencyBench};
use bench::relay::overload::{self, OverloadBench};
use bench::relay::rig::{LOAD_PROCESSOR, RELAY_PROCESSOR};
use bench::relay::scale::{self, ScaleBench};
use bench::relay::side_by_side::{self, SideBySide};
use bench::relay::soak::{self, SoakBench};
use bench::relay::stage::{Chosen, Stage};
use bench::relay::systems::Ours;
use bench::relay::{Cell, Rig, System, cell, systems};
use bench::report::Report;

use super::Usage;
use super::options::{Scale, Selection, Soak};
use super::session::{self, Ends};

/// The systems of `--quick`.
const QUICK_SYSTEMS: [&str; 4] = ["uring", "mmsg", "recvmmsg", "tokio"];
/// The rivals of which one begins and ends every round: the first that can do the cell.
const CONTROLS: [&str; 2] = ["recvmmsg", "epoll"];
/// What ratios compare with.
const REFERENCE: &str = "uring";
/// Rounds in a cell.
const ROUNDS: u32 = 5;

const ABOUT: &str = "A relay receives datagrams of many clients and sends each on to another client. Here each of several relays \
got the same datagrams on the same machine, one relay after the other and again in rounds; everything is shown as a ratio within a \
round, because a shared machine is faster in one minute and slower in the next.\n\n\
A ratio above 1 means: better than the reference. Load, links and sink are private network namespaces of one machine, so absolute \
rates are those of this machine, not of a network card.";

const ABOUT_LATENCY: &str = "How long a datagram takes from the moment it was due at the sender to its arrival at the receiver's \
interface, through each of several relays, while the relay is idle, half busy and nearly full. The load of each is a share of its own \
loss-free maximum, which is shown as its rate: a relay that carries more is measured at a higher rate.";

const ABOUT_OVERLOAD: &str = "What a relay delivers when it is offered more than it can carry, as a share of the most it delivers at any \
rate: with the kernel's receive work on another core, and with all of it on the relay's own. And whether it loses or reorders \
anything while it is not overloaded.";

const ABOUT_SIDE_BY_SIDE: &str = "The same number of clients, in few namespaces and in many, each crowd with a transfer of its own on \
one core, under the same load in turn.";

const ABOUT_SCALE: &str = "One transfer with ever more namespaces and registered clients, on one core: how long it takes to start, what \
a client holds of its memory, how fast clients can come and go, and what forwarding costs when a thousand of them send in turn.";

const ABOUT_SOAK: &str = "A relay at half of its own loss-free maximum, minute after minute: what it costs and how much memory it \
holds must not grow, and nothing may be lost or overtake.";

/// `bench relay`.
pub(crate) fn relay(options: &Selection) -> Result<ExitCode> {
    let Some((cells, systems)) = chosen(options, &cell::DEFAULT)? else { return Ok(ExitCode::SUCCESS) };
    let [saturation, core, step] =
        if options.quick { [400, 600, 120] } else { [500, 1_000, 150] }.map(Duration::from_millis);
    let lengths = Lengths { saturation, core, core_rounds: if options.quick { ROUNDS } else { 2 }, step };
    let rounds = options.rounds.unwrap_or(ROUNDS);
    say_hours(options, (saturation + core).as_secs_f64() + 0.3, cells.len(), systems.len(), rounds);
    let stop = session::enter()?;
    let (stage, chosen) = stage(systems)?;
    let allowed = Allowed {
        events: allowed("system calls are not counted", Events::of([]).map(drop)),
        steering: steering(&stage),
    };
    let words = ("relay", "Relays side by side", ABOUT, experiment::HEADLINE);
    let report = report(words, &cells, chosen, experiment::figures());
    let mut bench = RelayBench::new(stage, cells, lengths, allowed);
    session::measure(&mut bench, report, (rounds, REFERENCE), &stop, &ends(options, "relay"))
}

/// `bench latency`.
pub(crate) fn latency(options: &Selection) -> Result<ExitCode> {
    let Some((cells, systems)) = chosen(options, &latency::DEFAULT)? else { return Ok(ExitCode::SUCCESS) };
    let [length, step] = if options.quick { [500, 150] } else { [1_000, 250] }.map(Duration::from_millis);
    let rounds = options.rounds.unwrap_or(ROUNDS);
    say_hours(options, length.as_secs_f64() + 0.3, cells.len() * latency::LOADS.len(), systems.len(), rounds);
    let stop = session::enter()?;
    let (stage, chosen) = stage(systems)?;
    let words = ("latency", "Delay through a relay under load", ABOUT_LATENCY, latency::HEADLINE);
    let report = report(words, &cells, chosen, latency::figures());
    let mut bench = LatencyBench::new(stage, cells, length, step);
    session::measure(&mut bench, report, (rounds, REFERENCE), &stop, &ends(options, "latency"))
}

/// `bench overload`.
pub(crate) fn overload(options: &Selection) -> Result<ExitCode> {
    let Some((cells, systems)) = chosen(options, &overload::DEFAULT)? else { return Ok(ExitCode::SUCCESS) };
    let length = Duration::from_millis(if options.quick { 250 } else { 500 });
    let rounds = options.rounds.unwrap_or(ROUNDS);
    say_hours(options, length.as_secs_f64() * 20.0, cells.len(), systems.len(), rounds);
    let stop = session::enter()?;
    let (stage, chosen) = stage(systems)?;
    let steering = steering(&stage);
    let words = ("overload", "Relays that are offered too much", ABOUT_OVERLOAD, overload::HEADLINE);
    let report = report(words, &cells, chosen, overload::figures());
    let mut bench = OverloadBench::new(stage, cells, length, steering);
    session::measure(&mut bench, report, (rounds, REFERENCE), &stop, &ends(options, "overload"))
}

/// `bench soak`.
pub(crate) fn soak(options: &Soak) -> Result<ExitCode> {
    let cell = options.cell.as_deref().unwrap_or(soak::DEFAULT);
    let cell: Cell = cell.parse().map_err(|error| Usage::of(&error))?;
    let all = systems::all().into_iter().filter(|system| options.systems.iter().any(|wanted| wanted == system.name()));
    let all: Vec<_> = all.collect();
    if all.is_empty() {
        let why = format!("none of {:?} is a system; `relay --systems list` prints them", options.systems);
        return Err(Usage(why).into());
    }
    let stop = session::enter()?;
    let (stage, chosen) = stage(all)?;
    let words = ("soak", "Minutes under load", ABOUT_SOAK, soak::HEADLINE);
    let report = report(words, &[cell], chosen, soak::figures());
    let mut bench = SoakBench::new(stage, cell, options.minutes, Duration::from_secs(60));
    let ends = Ends { name: "soak".into(), resume: false, json: options.json, report: options.report.as_deref() };
    session::measure(&mut bench, report, (1, REFERENCE), &stop, &ends)
}

/// `bench scale`.
pub(crate) fn scale(options: &Scale) -> Result<ExitCode> {
    let named = |names: &[&str]| names.iter().map(|name| name.parse()).collect::<Result<Vec<Crowd>>>();
    let crowds = match &options.cells[..] {
        [] if options.quick => named(&scale::QUICK)?,
        [] if options.side_by_side => named(&side_by_side::DEFAULT)?,
        [] => named(&scale::DEFAULT)?,
        given => named(&given.iter().map(String::as_str).collect::<Vec<_>>()).map_err(|error| Usage::of(&error))?,
    };
    let known = [Ours::Uring, Ours::Mmsg, Ours::Portable];
    for name in &options.systems {
        if !known.iter().any(|ours| ours.name() == name) {
            return Err(Usage(format!("scale measures uring, mmsg and portable, not {name:?}")).into());
        }
    }
    let chosen = known
        .into_iter()
        .filter(|ours| options.systems.is_empty() || options.systems.iter().any(|name| name == ours.name()));
    let ours: Vec<Ours> = chosen.collect();
    if options.side_by_side {
        return beside(options, crowds, &ours);
    }
    let stop = session::enter()?;
    let boxed = ours.iter().map(|ours| Box::new(*ours) as Box<dyn System>).collect();
    let chosen = Chosen::find(boxed)?;
    let known = Known::of(&chosen);
    ensure!(known.absent.is_empty(), "there is no transfer: {}", known.absent[0].how);
    let report =
        report(("scale", "Many namespaces and clients", ABOUT_SCALE, scale::HEADLINE), &[], known, scale::figures());
    let mut bench = ScaleBench::new(Rig::new("bench")?, crowds, ours);
    let ends = Ends { name: "scale".into(), resume: false, json: options.json, report: options.report.as_deref() };
    session::measure(&mut bench, report, (options.rounds, REFERENCE), &stop, &ends)
}

/// `bench scale --side-by-side`.
fn beside(options: &Scale, crowds: Vec<Crowd>, ours: &[Ours]) -> Result<ExitCode> {
    let engine = match ours {
        [engine] => *engine,
        _ if options.systems.is_empty() => Ours::Uring,
        _ => return Err(Usage("crowds side by side are measured with one engine".into()).into()),
    };
    if crowds.len() > side_by_side::CROWDS_MAX {
        return Err(Usage(format!("at most {} crowds fit side by side", side_by_side::CROWDS_MAX)).into());
    }
    let stop = session::enter()?;
    let chosen = Chosen::find(vec![Box::new(engine)])?;
    let known = Known::of(&chosen);
    ensure!(known.absent.is_empty(), "there is no transfer: {}", known.absent[0].how);
    let reference = crowds[0].to_string();
    let words = ("side-by-side", "Few namespaces and many", ABOUT_SIDE_BY_SIDE, side_by_side::HEADLINE);
    let mut report = report(words, &[], known, side_by_side::figures());
    let info = |crowd: &Crowd| bench::report::SystemInfo {
        name: crowd.to_string(),
        about: format!("{} namespaces of {} clients", crowd.namespaces, crowd.clients),
        ..report.systems[0].clone()
    };
    report.systems = crowds.iter().map(info).collect();
    let mut bench = SideBySide::new(Rig::new("bench")?, engine, crowds);
    let ends =
        Ends { name: "side-by-side".into(), resume: false, json: options.json, report: options.report.as_deref() };
    session::measure(&mut bench, report, (options.rounds, &reference), &stop, &ends)
}

fn ends<'a>(options: &'a Selection, name: &str) -> Ends<'a> {
    let name = if options.matrix { format!("{name}-matrix") } else { name.to_owned() };
    Ends { name, resume: options.matrix && !options.restart, json: options.json, report: options.report.as_deref() }
}

/// Says how long a matrix takes, before it begins.
fn say_hours(options: &Selection, trial_seconds: f64, cells: usize, systems: usize, rounds: u32) {
    if options.matrix && !mesh_lab::inside() {
        let trials = cells as f64 * f64::from(rounds) * (systems as f64 + 1.0);
        eprintln!("{cells} cells, {systems} systems at most: about {:.1} hours", trials * trial_seconds / 3600.0);
    }
}

/// Cells, and systems to measure in them.
type Choice = (Vec<Cell>, Vec<Box<dyn System>>);

/// The cells and systems asked for; nothing if only their names were.
fn chosen(options: &Selection, default: &[&str]) -> Result<Option<Choice>> {
    if options.systems == ["list"] {
        systems::all().iter().for_each(|system| println!("{}", system.name()));
        return Ok(None);
    }
    let named = |names: &[&str]| names.iter().map(|name| name.parse()).collect::<Result<Vec<Cell>>>();
    let cells = match &options.cells {
        Some(expression) => Cell::select(expression).map_err(|error| Usage::of(&error))?,
        None if options.matrix => Cell::matrix(),
        None if options.quick => named(&cell::QUICK)?,
        None => named(default)?,
    };
    let mut all = systems::all();
    let known: Vec<&str> = all.iter().map(|system| system.name()).collect();
    for name in &options.systems {
        if !known.contains(&name.as_str()) && name != systems::ABLATIONS {
            let known = known.join(", ");
            return Err(Usage(format!("no system {name:?}; there are {known}, and {}", systems::ABLATIONS)).into());
        }
    }
    all.retain(|system| {
        let name = system.name();
        if !options.systems.is_empty() {
            let wanted =
                |wanted: &String| wanted == name || (wanted == systems::ABLATIONS && systems::is_ablation(name));
            options.systems.iter().any(wanted)
        } else if options.quick {
            QUICK_SYSTEMS.contains(&name)
        } else {
            !systems::is_on_request(name)
        }
    });
    Ok(Some((cells, all)))
}

/// Whether something is allowed; what is not measured without it is said.
fn allowed(what: &str, tried: Result<()>) -> bool {
    tried.inspect_err(|error| eprintln!("{what}: {error:#}")).is_ok()
}

/// Whether the kernel lets receive work be steered to a core.
fn steering(stage: &Stage) -> bool {
    let steer = |cores: &[usize]| stage.rig().left.b().steer_receive(cores);
    allowed("what the relay's core costs is not measured", steer(&[RELAY_PROCESSOR]).and_then(|()| steer(&[])))
}

/// The rig with the systems that are present, and what is known of all.
fn stage(systems: Vec<Box<dyn System>>) -> Result<(Stage, Known)> {
    let chosen = Chosen::find(systems)?;
    let known = Known::of(&chosen);
    let mut controls = systems::all();
    controls.retain(|system| CONTROLS.contains(&system.name()));
    Ok((Stage::new(Rig::new("bench")?, chosen, controls), known))
}

fn about_mode(mode: LinkMode) -> &'static str {
    match mode {
        LinkMode::Wire => {
            "each datagram crosses the link by itself, as between cards without offloads: the least favourable"
        }
        LinkMode::Nic => "trains are cut when sent and gathered again on arrival, as by common cards",
        LinkMode::Veth => "trains cross the link whole, as between containers of one machine: the most favourable",
    }
}

struct Known {
    present: Vec<bench::report::SystemInfo>,
    absent: Vec<bench::report::Absent>,
}

impl Known {
    fn of(chosen: &Chosen) -> Self {
        let present = chosen.present.iter().map(|(_, info)| info.clone()).collect();
        Self { present, absent: chosen.absent.clone() }
    }
}

fn report(words: (&str, &str, &str, &str), cells: &[Cell], known: Known, figures: Vec<Figure>) -> Report {
    let mut settings = vec![
        (
            "pinning".to_owned(),
            format!("relay on core {RELAY_PROCESSOR}, generator and sinks on core {LOAD_PROCESSOR}"),
        ),
        ("MTU".to_owned(), "1500 on both links".to_owned()),
    ];
    let mut modes: Vec<_> = cells.iter().map(|cell| cell.mode).collect();
    modes.sort_unstable_by_key(ToString::to_string);
    modes.dedup();
    settings.extend(modes.iter().map(|mode| (format!("link mode {mode}"), about_mode(*mode).to_owned())));
    let mut report = session::blank(words);
    report.settings.splice(0..0, settings);
    (report.systems, report.absent, report.figures) = (known.present, known.absent, figures);
    report
}
