//! The loop against an engine that keeps its book and a state machine that answers by rote.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::UdpSocket;
use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use mesh_core::seam::{Arrival, Endpoint, Origin, Slab, SocketId};
use mesh_core::session::jobs::{Done, Job};

use super::*;
use crate::engine::{EngineCounters, Wake};
use crate::inside::InsideDevice;
use crate::mailbox::mailbox;

#[derive(Clone, Default)]
struct Bell(Arc<AtomicUsize>);

impl Wake for Bell {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Bytes of one train.
struct Train(Vec<u8>);

struct Fake {
    /// What each wait hands out.
    arriving: VecDeque<Vec<Vec<u8>>>,
    slab: Vec<u8>,
    slab_used: usize,
    /// Everything that was asked of it, in order.
    book: Rc<RefCell<Vec<String>>>,
    bell: Bell,
}

impl Fake {
    fn note(&self, line: String) {
        self.book.borrow_mut().push(line);
    }
}

impl Engine for Fake {
    type Train = Train;
    type Waker = Bell;

    fn add_socket(&mut self, _: UdpSocket, _: bool) -> io::Result<SocketId> {
        Ok(SocketId(0))
    }

    fn remove_socket(&mut self, _: SocketId) -> io::Result<()> {
        Ok(())
    }

    fn add_inside(&mut self, _: InsideDevice) -> io::Result<()> {
        Ok(())
    }

    fn waker(&self) -> Bell {
        self.bell.clone()
    }

    fn wait(&mut self, timeout: Option<Duration>, batch: &mut Vec<Train>) -> io::Result<()> {
        self.note(format!("wait {timeout:?}"));
        self.slab_used = 0;
        batch.extend(self.arriving.pop_front().unwrap_or_default().into_iter().map(Train));
        Ok(())
    }

    fn arrival(&self, train: &Train) -> Arrival {
        let from = Endpoint { socket: SocketId(0), remote: "192.0.2.1:1".parse().unwrap(), local: None };
        Arrival { origin: Origin::Outside(from), segment_bytes: train.0.len().max(1), tos: 0 }
    }

    fn split<'a>(&'a mut self, train: &'a mut Train) -> (&'a mut [u8], Slab<'a>) {
        (&mut train.0, Slab::new(&mut self.slab, self.slab_used))
    }

    fn slab(&mut self) -> Slab<'_> {
        Slab::new(&mut self.slab, self.slab_used)
    }

    fn keep_slab(&mut self, used: usize) {
        self.slab_used = used;
    }

    fn forward(&mut self, train: &Train, bytes: Range<usize>, _: usize, to: &Endpoint, _: u8) {
        self.note(format!("forward {:?} to {}", &train.0[bytes], to.remote));
    }

    fn send(&mut self, slab: Range<usize>, _: usize, _: &Endpoint, _: u8) {
        self.note(format!("send {:?}", &self.slab[slab]));
    }

    fn deliver(&mut self, train: &Train, bytes: Range<usize>) {
        self.note(format!("deliver {:?}", &train.0[bytes]));
    }

    fn deliver_more(&mut self, train: &Train, bytes: Range<usize>) {
        self.note(format!("and {:?}", &train.0[bytes]));
    }

    fn deliver_slab(&mut self, slab: Range<usize>) {
        self.note(format!("deliver slab {:?}", &self.slab[slab]));
    }

    fn release(&mut self, train: Train) {
        self.note(format!("release {:?}", train.0));
    }

    fn flush(&mut self) -> io::Result<()> {
        self.note("flush".into());
        self.slab_used = 0;
        Ok(())
    }

    fn counters(&self) -> EngineCounters {
        EngineCounters::default()
    }

    fn name(&self) -> &'static str {
        "fake"
    }

    fn offloads(&self) -> Vec<&'static str> {
        Vec::new()
    }
}

/// Forwards what begins with 1, answers 2 from the slab, delivers 3 both ways, ignores the rest.
#[derive(Default)]
struct Rote {
    due: Option<Moment>,
    timeouts: usize,
    to_say: VecDeque<u8>,
    last_words: usize,
    jobs: VecDeque<Job>,
    done: Vec<u64>,
}

fn endpoint() -> Endpoint {
    Endpoint { socket: SocketId(0), remote: "192.0.2.2:2".parse().unwrap(), local: None }
}

impl Node for Rote {
    fn handle(&mut self, _: Moment, _: &Arrival, bytes: &mut [u8], slab: &mut Slab<'_>, actions: &mut Vec<Action>) {
        let all = 0..bytes.len();
        match bytes.first() {
            Some(1) => actions.push(Action::Forward { bytes: all, segment_bytes: 1, to: endpoint(), tos: 0 }),
            Some(2) => {
                let slab = slab.append(&[20]).unwrap();
                actions.push(Action::Send { slab, segment_bytes: 1, to: endpoint(), tos: 0 });
            }
            Some(3) => {
                bytes[0] = 30;
                actions.push(Action::Deliver { bytes: all });
                actions.push(Action::DeliverSlab { slab: slab.append(&[31]).unwrap() });
            }
            _ => {}
        }
    }

    fn poll_timeout(&self) -> Option<Moment> {
        self.due
    }

    fn handle_timeout(&mut self, _: Moment) {
        self.timeouts += 1;
        self.due = None;
        self.to_say.push_back(99);
    }

    fn poll_transmit(&mut self, _: Moment, slab: &mut Slab<'_>) -> Option<Action> {
        let word = self.to_say.pop_front()?;
        Some(Action::Send { slab: slab.append(&[word])?, segment_bytes: 1, to: endpoint(), tos: 0 })
    }

    fn poll_job(&mut self) -> Option<Job> {
        self.jobs.pop_front()
    }

    fn handle_job(&mut self, _: Moment, done: Done) {
        self.done.push(done.id);
    }
}

type Book = Rc<RefCell<Vec<String>>>;

#[expect(clippy::type_complexity, reason = "the four things a test looks at")]
fn pump(
    arriving: Vec<Vec<Vec<u8>>>,
    node: Rote,
    slab_bytes: usize,
) -> (Pump<Fake, Rote, impl FnMut(&mut Fake, &mut Rote, Moment) -> Flow>, Mailbox<Fake, Rote>, Book, Bell) {
    let (book, bell) = (Book::default(), Bell::default());
    let engine = Fake {
        arriving: arriving.into(),
        slab: vec![0; slab_bytes],
        slab_used: 0,
        book: Rc::clone(&book),
        bell: bell.clone(),
    };
    let (mailbox, inbox) = mailbox(bell.clone());
    let helpers = Helpers::start(1, 8).unwrap();
    let pump = Pump::new(engine, node, inbox, mailbox.clone(), helpers, |_: &mut Fake, _: &mut Rote, _| Flow::Continue);
    (pump, mailbox, book, bell)
}

#[test]
fn trains_go_in_and_verdicts_come_out_in_order() {
    let (mut pump, _, book, _) = pump(vec![vec![vec![1, 7], vec![2], vec![3], vec![9], vec![]]], Rote::default(), 64);
    assert_eq!(pump.turn().unwrap(), Flow::Continue);
    assert_eq!(
        *book.borrow(),
        [
            "wait None",
            "forward [1, 7] to 192.0.2.2:2",
            "release [1, 7]",
            "send [20]",
            "release [2]",
            "deliver [30]",
            "deliver slab [31]",
            "release [30]",
            "release [9]",
            "release []",
        ]
    );
}

#[test]
fn what_is_due_is_done_and_said_in_the_same_turn() {
    let node = Rote { due: Some(Moment::from_nanos(1)), ..Rote::default() };
    let (mut pump, _, book, _) = pump(vec![], node, 64);
    pump.turn().unwrap();
    assert_eq!(*book.borrow(), ["wait Some(0ns)", "send [99]"]);
    assert_eq!((pump.node.timeouts, pump.node.due), (1, None));
    pump.node.due = Some(clock::now() + Duration::from_secs(3600));
    pump.turn().unwrap();
    assert_eq!(pump.node.timeouts, 1, "not before its time");
}

#[test]
fn a_long_speech_is_flushed_in_pieces_that_fit_the_slab() {
    let node = Rote { to_say: vec![5; 1000].into(), ..Rote::default() };
    let (mut pump, _, book, _) = pump(vec![], node, TRANSMITS_PER_FLUSH);
    pump.turn().unwrap();
    let count = |line: &str| book.borrow().iter().filter(|entry| *entry == line).count();
    assert_eq!((count("send [5]"), count("flush")), (1000, 1000 / TRANSMITS_PER_FLUSH));
}

#[test]
fn a_stop_from_another_thread_lets_the_last_words_out() {
    let (pump, mailbox, book, bell) = pump(vec![vec![vec![1]], vec![]], Rote::default(), 64);
    let stopper = std::thread::spawn(move || {
        mailbox.send(|_, node: &mut Rote, _| {
            node.to_say.extend([7, 8]);
            node.last_words = 2;
            Flow::Stop
        })
    });
    assert!(stopper.join().unwrap());
    assert_eq!(bell.0.load(Ordering::SeqCst), 1, "the engine was woken");
    pump.run().unwrap();
    let book = book.borrow();
    let said: Vec<_> = book.iter().filter(|line| line.starts_with("send")).collect();
    assert_eq!(said, ["send [7]", "send [8]"]);
    assert_eq!(book.last().map(String::as_str), Some("flush"));
}

#[test]
fn the_observer_can_stop_the_loop_too() {
    let (book, bell) = (Book::default(), Bell::default());
    let engine = Fake { arriving: VecDeque::new(), slab: vec![0; 8], slab_used: 0, book, bell: bell.clone() };
    let (mailbox, inbox) = mailbox(bell);
    let helpers = Helpers::start(1, 8).unwrap();
    let mut turns = 0;
    let stop_at_third = |_: &mut Fake, _: &mut Rote, _| {
        turns += 1;
        if turns == 3 { Flow::Stop } else { Flow::Continue }
    };
    Pump::new(engine, Rote::default(), inbox, mailbox, helpers, stop_at_third).run().unwrap();
    assert_eq!(turns, 3);
}

#[test]
fn a_question_is_answered_between_two_turns() {
    let (mut pump, mailbox, _, _) = pump(vec![], Rote::default(), 8);
    let answer = mailbox.ask(|engine, node, _| (engine.name(), node.timeouts));
    assert_eq!(answer.try_recv(), Err(mpsc::TryRecvError::Empty));
    pump.turn().unwrap();
    assert_eq!(answer.try_recv(), Ok(("fake", 0)));
    drop(pump);
    assert!(mailbox.ask(|_, _, _| ()).recv().is_err(), "a loop that ended gives no answer");
}

#[test]
fn jobs_are_run_elsewhere_and_their_outcome_comes_back() {
    use mesh_core::session::handshake::{Kind, Params, StaticKey};
    use mesh_core::session::token::{NamespaceKeys, StretchedToken};

    let keys = NamespaceKeys::derive(&StretchedToken::from_bytes([1; 32]), 8000, None);
    let params = Params::new(Kind::GatewayToTransfer, &keys, &StaticKey::from_seed([2; 32]), [3; 32]);
    let node = Rote { jobs: [Job::initiator_start(42, params, vec![0])].into(), ..Rote::default() };
    let (mut pump, _, _, bell) = pump(vec![], node, 8);
    pump.turn().unwrap();
    assert!(pump.node.done.is_empty(), "the data thread does not run it");
    while bell.0.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    pump.turn().unwrap();
    assert_eq!(pump.node.done, [42]);
}
