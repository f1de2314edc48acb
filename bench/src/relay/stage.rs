//! The stage: all systems of a cell started on one rig, and load for one of them at a time.
//!
//! Every relay of a cell runs from its beginning to its end, on ports of its own, so a trial begins with a warm program and registered
//! clients. Totals are read before the first datagram and after the last has left the relay, so no reading falls into the load.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::LinkMode;

use super::rig::{LOAD_PROCESSOR, RELAY_PROCESSOR};
use super::{Cell, Found, Rig, Running, System};
use crate::cost;
use crate::load::{Count, Counter, DATAGRAM_PORTS, Flow, Generator, Pace, Sent};
use crate::report::{Absent, SystemInfo};
use crate::rounds::Lineup;

/// Shares of datagrams that may be lost at the loss-free maximum.
const LOSS_FREE: f64 = 0.001;
/// Steps of the search for it: each halves the range.
const STEPS: u32 = 6;
/// A relay that spends less of its core than this, while nothing is lost, was not saturated.
const SATURATED: f64 = 0.90;
/// How long nothing must arrive for a relay to count as drained; it has a core of its own.
const SETTLE: Duration = Duration::from_millis(50);
/// By what name the control is known beside the systems.
pub const CONTROL: &str = "control";

/// The systems chosen, and who of them is here.
pub struct Chosen {
    /// Present ones, with what they say of themselves.
    pub present: Vec<(Box<dyn System>, SystemInfo)>,
    /// The rest.
    pub absent: Vec<Absent>,
}

impl Chosen {
    /// Looks for each system.
    ///
    /// # Errors
    /// A variable names a program that cannot be run.
    pub fn find(systems: Vec<Box<dyn System>>) -> Result<Self> {
        let mut chosen = Self { present: Vec::new(), absent: Vec::new() };
        for system in systems {
            match system.find()? {
                Found::Ok(info) => chosen.present.push((system, info)),
                Found::Err(absent) => chosen.absent.push(absent),
            }
        }
        Ok(chosen)
    }
}

/// A rig with everything that runs on it in the cell that is open.
pub struct Stage {
    rig: Rig,
    systems: Vec<(Box<dyn System>, SystemInfo)>,
    controls: Vec<Box<dyn System>>,
    open: Option<Open>,
}

/// What runs in an open cell. Fields are dropped in this order: the load before what carries it.
struct Open {
    generator: Option<(String, Generator)>,
    counter: Counter,
    running: Vec<(String, Box<dyn Running>)>,
    control: Box<dyn Running>,
    /// The loss-free maximum of each system, in datagrams a second, once searched: with the receive work where it falls, and steered
    /// to the relay's core.
    peaks: Vec<(String, bool, f64)>,
    /// Whether the receive work of the relay's host is steered to the relay's core now.
    steered: bool,
}

impl Stage {
    /// On a rig, with the systems that are present; the first of `controls` that can do a cell runs before and after each round.
    pub fn new(rig: Rig, chosen: Chosen, controls: Vec<Box<dyn System>>) -> Self {
        Self { rig, systems: chosen.present, controls, open: None }
    }

    /// The rig.
    pub fn rig(&self) -> &Rig {
        &self.rig
    }

    /// Starts everything that can do the cell.
    ///
    /// # Errors
    /// The rig cannot be set to the cell's link mode, or the control does not start.
    pub fn open(&mut self, cell: Cell) -> Result<Lineup> {
        self.rig.set_mode(cell.mode)?;
        let counter = Counter::new(self.rig.right.b(), DATAGRAM_PORTS)?;
        let control = self.controls.iter().find(|control| control.unable(&cell).is_none());
        let control = control.context("no control can do the cell")?;
        let control = control.start(&self.rig, &cell, 0).context("start the control")?;
        self.rig.left.b().steer_receive(&[])?;
        let (running, peaks) = (Vec::new(), Vec::new());
        let mut open = Open { generator: None, counter, running, control, peaks, steered: false };
        let mut lineup = Lineup::default();
        for (number, (system, _)) in (1..).zip(&self.systems) {
            let name = system.name().to_owned();
            if let Some(why) = system.unable(&cell) {
                lineup.unable.push((name, why));
                continue;
            }
            match system.start(&self.rig, &cell, number) {
                Ok(running) => {
                    lineup.able.push(name.clone());
                    open.running.push((name, running));
                }
                Err(error) => lineup.failed.push((name, format!("{error:#}"))),
            }
        }
        self.open = Some(open);
        Ok(lineup)
    }

    /// Ends everything that runs.
    pub fn close(&mut self) {
        self.open = None;
    }

    fn opened(&mut self) -> Result<&mut Open> {
        self.open.as_mut().context("no cell is open")
    }

    /// The programs of a system; none if the kernel itself relays.
    ///
    /// # Errors
    /// It does not run.
    pub fn processes(&mut self, system: &str) -> Result<Vec<u32>> {
        self.opened()?.processes(system)
    }

    /// Points the generator at a system, sends at a pace, and says when all that arrives has arrived: what was sent and what came,
    /// without what the system writes before bodies.
    ///
    /// # Errors
    /// The system does not run, or the kernel takes no frames.
    pub fn send(&mut self, cell: Cell, system: &str, pace: Pace, length: Duration) -> Result<(Sent, Count)> {
        self.aim(cell, system)?;
        let open = self.opened()?;
        let before = open.counter.read()?;
        let sent = open.load(pace, length)?;
        let head_bytes = open.running(system)?.head_bytes();
        Ok((sent, open.settled()?.since(before).without_heads(cell.payload, head_bytes)))
    }

    /// Has the receive work of the relay's host done by the relay's core, or where it falls: on the sender's core.
    ///
    /// # Errors
    /// The kernel refuses it, as it does in a user namespace.
    pub fn steer(&mut self, steered: bool) -> Result<()> {
        self.rig.left.b().steer_receive(if steered { &[RELAY_PROCESSOR] } else { &[] })?;
        self.opened()?.steered = steered;
        Ok(())
    }

    /// The loss-free maximum of a system in this cell, in datagrams a second, as receive work is steered now. It is searched at the
    /// first call, from what the relay delivers when it is offered too much.
    ///
    /// # Errors
    /// As [`Stage::send`].
    pub fn peak(&mut self, cell: Cell, system: &str, step: Duration) -> Result<f64> {
        let steered = self.opened()?.steered;
        let known = self.opened()?.peaks.iter().find(|(name, how, _)| name == system && *how == steered);
        if let Some((_, _, peak)) = known {
            return Ok(*peak);
        }
        let peak = if steered {
            // A core that takes in all that is offered may deliver nothing: the other maximum is the better bound.
            self.steer(false)?;
            let most = self.peak(cell, system, step)?;
            self.steer(true)?;
            self.search(cell, system, most, step)?
        } else {
            let first = self.saturate(cell, system, step)?;
            let most = first.sent.per_second().min(first.per_second() * 1.3);
            let found = self.search(cell, system, most, step)?;
            // What passes passes: a machine that stood still during the search is no reason for a low maximum.
            if found < first.per_second() / 2.0 { found.max(self.search(cell, system, most, step)?) } else { found }
        };
        self.opened()?.peaks.push((system.to_owned(), steered, peak));
        Ok(peak)
    }

    /// Sends as fast as the generator can for a while, and says what became of it.
    ///
    /// # Errors
    /// As [`Stage::load`].
    pub fn saturate(&mut self, cell: Cell, system: &str, length: Duration) -> Result<Outcome> {
        self.load(cell, system, Pace::Full, length)
    }

    /// Sends at a pace for a while, and says what became of it and what it cost.
    ///
    /// # Errors
    /// As [`Stage::send`]; or nothing arrived at all.
    pub fn load(&mut self, cell: Cell, system: &str, pace: Pace, length: Duration) -> Result<Outcome> {
        let processes = self.processes(system)?;
        let used = || processes.iter().map(|process| cost::processor_time(*process)).sum::<Result<Duration>>();
        let (time, busy) = (used()?, cost::busy()?);
        let (sent, count) = self.send(cell, system, pace, length)?;
        let (time, busy_before, busy) = (used()?.saturating_sub(time), busy, cost::busy()?);
        let datagrams = count.datagrams(cell.payload);
        ensure!(datagrams > 0.0, "of {} datagrams sent none arrived", sent.datagrams);
        Ok(Outcome {
            sent,
            train: count.train(cell.payload),
            datagrams,
            bytes: count.payload_bytes() as f64,
            relay: time,
            core: busy.of_core_since(&busy_before, RELAY_PROCESSOR)?,
            machine: busy.since(&busy_before),
        })
    }

    /// The loss-free maximum in datagrams a second, by halving the range up to `most`.
    fn search(&mut self, cell: Cell, system: &str, most: f64, step: Duration) -> Result<f64> {
        let (mut low, mut high) = (0.0, most);
        for _ in 0..STEPS {
            let rate = f64::midpoint(low, high);
            if self.carries(cell, system, rate, step)? { low = rate } else { high = rate }
        }
        Ok(low)
    }

    /// Whether a rate passes with no more loss than counts as none. A machine that does something else for a moment costs one step a
    /// loss that is not the relay's: a rate is refused only when it failed twice.
    fn carries(&mut self, cell: Cell, system: &str, rate: f64, length: Duration) -> Result<bool> {
        for _ in 0..2 {
            let (sent, count) = self.send(cell, system, Pace::PerSecond((rate as u64).max(1)), length)?;
            let arrived = count.datagrams(cell.payload);
            if arrived >= sent.datagrams as f64 * (1.0 - LOSS_FREE) && sent.per_second() >= rate * 0.97 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Points the generator at a system.
    fn aim(&mut self, cell: Cell, system: &str) -> Result<()> {
        let (left, right) = (self.rig.left.a().clone(), self.rig.left.b().clone());
        let open = self.opened()?;
        if open.generator.as_ref().is_some_and(|(aim, _)| aim == system) {
            return Ok(());
        }
        let flows: Vec<Flow> = open.running(system)?.flows().to_vec();
        // The one before is gone before the next is made: they share the interface.
        if let Some((before, _)) = open.generator.take()
            && let Ok(running) = open.running_mut(&before)
        {
            running.turn(false).with_context(|| format!("take the load off {before}"))?;
        }
        open.running_mut(system)?.turn(true)?;
        let mut generator = Generator::new(&left, &right, &flows, cell.payload, cell.burst, LOAD_PROCESSOR)?;
        if cell.mode == LinkMode::Wire {
            generator.merge_bursts()?;
        }
        open.generator = Some((system.to_owned(), generator));
        Ok(())
    }

    /// Keeps the clients of all systems registered; to be called before each trial.
    ///
    /// # Errors
    /// The system whose turn it is has died or lost a client, or the control has. Others are named when their turn comes.
    pub fn tend(&mut self, turn: &str) -> Result<()> {
        let open = self.open.as_mut().context("no cell is open")?;
        open.control.tend().context("the control")?;
        let mut ended = Ok(());
        open.running.retain_mut(|(name, running)| match running.tend() {
            Err(error) if name == turn => {
                ended = Err(error);
                false
            }
            // It will fail again in its own turn.
            Ok(()) | Err(_) => true,
        });
        ended
    }
}

/// What became of a load.
pub struct Outcome {
    /// What the generator sent.
    pub sent: Sent,
    /// Datagrams delivered.
    pub datagrams: f64,
    /// Their bodies, in bytes.
    pub bytes: f64,
    /// Processor time of the relay's programs.
    pub relay: Duration,
    /// Datagrams in each buffer that arrived at the receiver.
    pub train: f64,
    /// Busy time of the relay's core.
    pub core: Duration,
    /// Busy time of the whole machine.
    pub machine: Duration,
}

impl Outcome {
    /// Datagrams delivered for each second of load.
    pub fn per_second(&self) -> f64 {
        self.datagrams / self.sent.elapsed.as_secs_f64()
    }

    /// Nanoseconds of a cost for each datagram delivered.
    pub fn each(&self, time: Duration) -> f64 {
        time.as_nanos() as f64 / self.datagrams
    }

    /// Whether the relay could have taken more: next to nothing was lost and its core had time left.
    pub fn generator_limited(&self, busy: Duration) -> bool {
        self.datagrams > self.sent.datagrams as f64 * 0.98
            && busy.as_secs_f64() < SATURATED * self.sent.elapsed.as_secs_f64()
    }
}

impl Open {
    fn running(&self, system: &str) -> Result<&dyn Running> {
        if system == CONTROL {
            return Ok(self.control.as_ref());
        }
        let found = self.running.iter().find(|(name, _)| name == system);
        found.map(|(_, running)| running.as_ref()).with_context(|| format!("{system} does not run"))
    }

    fn running_mut(&mut self, system: &str) -> Result<&mut Box<dyn Running>> {
        if system == CONTROL {
            return Ok(&mut self.control);
        }
        let found = self.running.iter_mut().find(|(name, _)| name == system);
        found.map(|(_, running)| running).with_context(|| format!("{system} does not run"))
    }

    fn processes(&self, system: &str) -> Result<Vec<u32>> {
        Ok(self.running(system)?.processes().iter().map(mesh_lab::Process::id).collect())
    }

    fn load(&mut self, pace: Pace, length: Duration) -> Result<Sent> {
        let (_, generator) = self.generator.as_mut().context("the generator is not aimed")?;
        generator.run(pace, length)
    }

    /// The counter's reading when nothing arrives any more.
    fn settled(&mut self) -> Result<Count> {
        self.counter.settled(SETTLE)
    }
}
