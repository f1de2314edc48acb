//! What all verbs share: the private world, Ctrl-C, progress, partial results, and the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use console::Term;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::setsid;
use signal_hook::consts::{SIGINT, SIGTERM};

use bench::report::progress::Progress;
use bench::report::{self, Report, table::table};
use bench::rounds::{self, Experiment, Plan, Watch};
use bench::{load, machine};

use super::{STOPPED, TOO_NOISY};

/// Asked to stop by Ctrl-C.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on Ctrl-C does not end the program but is noted.
    pub(crate) fn on_interrupt() -> Result<Self> {
        let stop = Self::default();
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop.0)).context("listen to Ctrl-C")?;
        }
        Ok(stop)
    }

    pub(crate) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Enters the private world and takes what a bench needs there. Returns inside only.
pub(crate) fn enter() -> Result<Stop> {
    mesh_lab::pass_interrupts_on()?;
    mesh_lab::enter()?;
    let stop = Stop::on_interrupt()?;
    prefer();
    // Thousands of clients are thousands of sockets.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raise the limit of open files")?;
    Ok(stop)
}

/// Has everything of the bench, load and systems alike, preferred to other work of the machine, where the kernel allows it.
fn prefer() {
    // In a session of its own, because the kernel weighs sessions against each other before the processes in them.
    let _ = setsid();
    let _ = fs::write("/proc/self/autogroup", PRIORITY.to_string());
    let _ = load::set_priority(PRIORITY);
}

/// For the settings of a report: what the kernel allowed.
fn priority() -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold anything, the nice value is the seventeenth word.
    let nice = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(16)).unwrap_or("unknown").to_owned();
    let session = fs::read_to_string("/proc/self/autogroup").unwrap_or_default();
    let session = session.split_whitespace().last().map(|value| format!(", session {value}")).unwrap_or_default();
    format!("nice {nice}{session}, for generator, sinks and systems alike")
}

/// The nice value asked for.
const PRIORITY: i32 = -15;

/// Where a run leaves what it has measured so far: beside the program, in the target folder.
fn kept(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().context("find this program")?;
    let target = program.parent().and_then(Path::parent).context("this program is in no target folder")?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder.join(format!("{name}.json")))
}

/// What becomes of a report.
pub(crate) struct Ends<'a> {
    /// Name of the file with partial results.
    pub(crate) name: String,
    /// Whether an earlier run of that name is gone on with.
    pub(crate) resume: bool,
    pub(crate) json: bool,
    pub(crate) report: Option<&'a Path>,
}

struct Shown {
    progress: Progress,
    partial: PathBuf,
}

impl Watch for Shown {
    fn cell(&mut self, name: &str, trials: u64) {
        self.progress.start(name, trials);
    }

    fn trial(&mut self, round: u32, system: &str) {
        self.progress.trial(&format!("round {round}: {system}"));
    }

    fn saved(&mut self, report: &Report) {
        if let Err(error) = report::json::write(report, &self.partial) {
            self.progress.line(&format!("the partial results were not saved: {error:#}"));
        }
    }
}

/// Measures, shows, saves, and says with which code to end.
pub(crate) fn measure(
    experiment: &mut dyn Experiment,
    mut report: Report,
    (rounds, reference): (u32, &str),
    stop: &Stop,
    ends: &Ends<'_>,
) -> Result<ExitCode> {
    let partial = kept(&ends.name)?;
    if ends.resume && partial.exists() {
        let earlier = report::json::read(&partial)?;
        eprintln!("going on with {}, which holds {} cells", partial.display(), earlier.cells.len());
        (report.cells, report.seconds) = (earlier.cells, earlier.seconds);
    }
    let trials = experiment.cells().len() as u64 * u64::from(rounds) * (report.systems.len() as u64 + 2);
    let mut shown = Shown { progress: Progress::new(trials), partial };
    let mut plan = Plan { rounds, reference: reference.into(), stopped: &|| stop.asked(), watch: &mut shown };
    let ended = rounds::run(experiment, &mut plan, &mut report);
    shown.saved(&report);
    shown.progress.finish();
    show(&report, ends)?;
    ended?;
    if !report.complete {
        eprintln!("stopped: what was measured until then is in {}", shown.partial.display());
        return Ok(ExitCode::from(STOPPED));
    }
    Ok(verdict(&report))
}

/// Prints tables or JSON, writes the page.
fn show(report: &Report, ends: &Ends<'_>) -> Result<()> {
    if ends.json {
        println!("{}", report::json::text(report)?);
    } else {
        let width = terminal_width();
        for cell in &report.cells {
            println!("{}", table(report, cell, width));
        }
        print!("{}", report::goals::table(report, width));
    }
    if let Some(folder) = ends.report {
        report::write(report, folder)?;
        eprintln!("report: {}", folder.join("index.html").display());
    }
    Ok(())
}

/// Columns of the terminal; 160 if the output goes elsewhere.
fn terminal_width() -> usize {
    Term::stdout().size_checked().map_or(160, |(_rows, columns)| columns.into())
}

/// 1 if a system failed, 3 if the machine was too noisy.
fn verdict(report: &Report) -> ExitCode {
    let (mut all, mut rejected) = (0, 0);
    for round in report.cells.iter().flat_map(|cell| &cell.rounds) {
        all += 1;
        rejected += usize::from(!round.accepted);
    }
    let failed: Vec<_> =
        report.cells.iter().flat_map(|cell| cell.failed.iter().map(move |why| (&cell.name, why))).collect();
    for (cell, (system, why)) in &failed {
        eprintln!("bench: {system} failed in {cell}: {why}");
    }
    if !failed.is_empty() {
        return ExitCode::FAILURE;
    }
    if rejected * 2 > all {
        eprintln!(
            "bench: too noisy: the control moved by over 10 % in {rejected} of {all} rounds; do not rely on these figures"
        );
        return ExitCode::from(TOO_NOISY);
    }
    ExitCode::SUCCESS
}

/// A report with what is known before the first trial. `words` are the kind of bench, the title, what it is about, and the headline.
pub(crate) fn blank((bench, title, about, headline): (&str, &str, &str, &str)) -> Report {
    let words = std::iter::once("cargo xtask bench".to_owned()).chain(std::env::args().skip(1));
    Report {
        bench: bench.into(),
        title: title.into(),
        about: about.into(),
        command: words.collect::<Vec<_>>().join(" "),
        started: today(),
        seconds: 0.0,
        machine: machine::machine(),
        settings: [("priority".to_owned(), priority())].into_iter().chain(machine::settings()).collect(),
        systems: Vec::new(),
        absent: Vec::new(),
        figures: Vec::new(),
        headline: headline.into(),
        cells: Vec::new(),
        goals: Vec::new(),
        complete: false,
    }
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the date of a report decides nothing")]
fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
