//! When the router is asked, and when what it granted is given back.
//!
//! - At once for a new target; then each half of what was granted.
//! - When the network has changed, the router announces something, or a check was asked for; not more often than every five seconds.
//! - While nobody answers: after half a minute, two, ten, and then each hour.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until, timeout};

use super::answer::{Granted, Refused};
use super::{Protocol, RELEASE, Report, Target, exchange, natpmp, pcp, upnp};

/// Between two questions that something other than time asks for.
const LEAST: Duration = Duration::from_secs(5);

/// Between two questions for a mapping that there is not.
const RETRIES: [Duration; 4] =
    [Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(600), Duration::from_secs(3600)];

/// Between two questions for a mapping to go on that are not answered, and how many of them make it lost.
const RENEWAL_RETRY: Duration = Duration::from_secs(10);
const RENEWALS_UNANSWERED: u32 = 3;

/// How long a question that is under way may take at the end of the program: what it grants has to be given back.
const FINISH: Duration = Duration::from_millis(400);

/// What the keeper is told.
#[derive(Debug)]
pub(super) enum Command {
    /// To ask for this, or why there is nothing to ask for.
    Target(Result<Target, String>),
    /// The router may not be what it was.
    Check,
    /// To give back what there is, and end.
    Stop,
}

/// A mapping.
#[derive(Clone, Debug)]
struct Held {
    target: Target,
    way: Way,
    granted: Granted,
}

/// How it was got.
#[derive(Clone, Debug)]
enum Way {
    Pcp,
    NatPmp,
    Upnp(Box<upnp::Device>),
}

impl Way {
    fn protocol(&self) -> Protocol {
        match self {
            Self::Pcp => Protocol::Pcp,
            Self::NatPmp => Protocol::NatPmp,
            Self::Upnp(_) => Protocol::UpnpIgd,
        }
    }
}

/// What ended a wait.
enum Woken {
    Due,
    Announced,
    Told(Command),
}

struct Keeper {
    /// By which a router that speaks PCP knows again whose a mapping is.
    nonce: [u8; 12],
    target: Option<Target>,
    held: Option<Held>,
    /// When to ask next; `None`: not before something changes.
    due: Option<Instant>,
    asked: Option<Instant>,
    /// Questions without success since the last one with it.
    failures: u32,
    /// What the router answered to before: it is tried first.
    favourite: Option<Protocol>,
    announcements: Option<UdpSocket>,
    told: Option<Report>,
}

/// Keeps a mapping until it is told to stop. `report` is called when something has changed.
pub(super) async fn keep(nonce: [u8; 12], mut commands: UnboundedReceiver<Command>, mut report: impl FnMut(Report)) {
    let mut keeper = Keeper {
        nonce,
        target: None,
        held: None,
        due: None,
        asked: None,
        failures: 0,
        favourite: None,
        announcements: None,
        told: None,
    };
    loop {
        let mut next = match keeper.wait(&mut commands).await {
            Woken::Due => {
                keeper.asked = Some(Instant::now());
                let (outcome, next) = keeper.ask_while_told(&mut commands).await;
                if let Some(outcome) = outcome {
                    keeper.conclude(outcome, &mut report);
                }
                next
            }
            Woken::Announced => Some(Command::Check),
            Woken::Told(command) => Some(command),
        };
        match next.take() {
            None => {}
            Some(Command::Check) => keeper.hasten(),
            Some(Command::Target(target)) => keeper.aim(target, &mut report),
            Some(Command::Stop) => break,
        }
    }
    if let Some(held) = keeper.held.take() {
        release(held, nonce).await;
    }
}

impl Keeper {
    async fn wait(&self, commands: &mut UnboundedReceiver<Command>) -> Woken {
        let due = async {
            match self.due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        let announced = async {
            match &self.target {
                Some(target) => exchange::announced(self.announcements.as_ref(), target.router).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            // Whoever could tell anything is gone: that is the end too.
            command = commands.recv() => Woken::Told(command.unwrap_or(Command::Stop)),
            () = due => Woken::Due,
            () = announced => Woken::Announced,
        }
    }

    /// Asks, and hears what is told meanwhile: what the router said, unless it is of no interest any more, and what was told.
    async fn ask_while_told(
        &self,
        commands: &mut UnboundedReceiver<Command>,
    ) -> (Option<Result<Held, Refused>>, Option<Command>) {
        let mut ask = pin!(self.ask());
        let mut check = None;
        loop {
            let command = tokio::select! {
                biased;
                outcome = &mut ask => return (Some(outcome), check),
                command = commands.recv() => command.unwrap_or(Command::Stop),
            };
            match command {
                Command::Check => check = Some(Command::Check),
                Command::Target(Ok(target)) if Some(target) == self.target => check = Some(Command::Check),
                other @ Command::Target(_) => return (None, Some(other)),
                // What is granted now has to be given back.
                Command::Stop => return (timeout(FINISH, ask).await.ok(), Some(Command::Stop)),
            }
        }
    }

    async fn ask(&self) -> Result<Held, Refused> {
        match (&self.held, &self.target) {
            (Some(held), _) => renew(held, &self.nonce).await,
            (None, Some(target)) => find(target, &self.nonce, self.favourite).await,
            (None, None) => Err(Refused::Silent),
        }
    }

    /// Takes what the router said.
    fn conclude(&mut self, outcome: Result<Held, Refused>, report: &mut impl FnMut(Report)) {
        let now = Instant::now();
        match outcome {
            Ok(held) => {
                self.failures = 0;
                self.favourite = Some(held.way.protocol());
                self.due = Some(now + held.granted.lifetime / 2);
                let outside = SocketAddr::V4(held.granted.outside);
                self.tell(Report::Mapped { outside, protocol: held.way.protocol() }, report);
                self.held = Some(held);
            }
            Err(refused) => {
                self.failures = self.failures.saturating_add(1);
                let lost = self.held.is_some() && (refused != Refused::Silent || self.failures >= RENEWALS_UNANSWERED);
                if lost {
                    self.held = None;
                    // It may be had another way.
                    (self.failures, self.due) = (0, Some(now + LEAST));
                } else if self.held.is_some() {
                    self.due = Some(now + RENEWAL_RETRY);
                } else {
                    let retry = usize::try_from(self.failures - 1).unwrap_or(usize::MAX).min(RETRIES.len() - 1);
                    self.due = Some(now + RETRIES[retry]);
                }
                if self.held.is_none() {
                    self.tell(Report::Lost { why: refused.to_string() }, report);
                }
            }
        }
    }

    /// The network is another, or may be.
    fn aim(&mut self, target: Result<Target, String>, report: &mut impl FnMut(Report)) {
        let (target, why) = match target {
            Ok(target) => (Some(target), None),
            Err(why) => (None, Some(why)),
        };
        if target.is_some() && target == self.target {
            self.failures = 0;
            self.hasten();
            return;
        }
        if let Some(held) = self.held.take() {
            self.tell(Report::Lost { why: "the network is another".into() }, report);
            // The router may still be reached, if only the port is another.
            tokio::spawn(release(held, self.nonce));
        }
        if let Some(why) = why {
            self.tell(Report::Lost { why }, report);
        }
        (self.failures, self.favourite, self.asked) = (0, None, None);
        self.announcements = target.as_ref().and_then(exchange::announcements);
        self.due = target.map(|_| Instant::now());
        self.target = target;
    }

    /// Asks soon.
    fn hasten(&mut self) {
        let Some(due) = self.due else { return };
        let soon = self.asked.map_or_else(Instant::now, |asked| (asked + LEAST).max(Instant::now()));
        self.due = Some(due.min(soon));
    }

    fn tell(&mut self, news: Report, report: &mut impl FnMut(Report)) {
        if self.told.as_ref() != Some(&news) {
            self.told = Some(news.clone());
            report(news);
        }
    }
}

/// Asks in all languages, until one is understood.
async fn find(target: &Target, nonce: &[u8; 12], favourite: Option<Protocol>) -> Result<Held, Refused> {
    let mut protocols = [Protocol::Pcp, Protocol::NatPmp, Protocol::UpnpIgd];
    protocols.sort_by_key(|protocol| Some(*protocol) != favourite);
    let mut refused = Refused::Silent;
    for protocol in protocols {
        let answer = match protocol {
            Protocol::Pcp => grant(target, Way::Pcp, pcp::map(target, nonce, None)).await,
            Protocol::NatPmp => grant(target, Way::NatPmp, natpmp::map(target, None)).await,
            Protocol::UpnpIgd => match upnp::search(target).await {
                Ok(device) => {
                    let asked = upnp::map(&device, target, None);
                    grant(target, Way::Upnp(Box::new(device.clone())), asked).await
                }
                Err(refused) => Err(refused),
            },
        };
        tracing::debug!(%protocol, router = %target.router, answer = ?answer.as_ref().map(|held| held.granted), "asked for a mapping");
        match answer {
            Ok(held) => return Ok(held),
            // So it is whatever it is asked by. What it may have granted is of no use.
            Err(Refused::NotPublic(ip)) => {
                let unmapped = match protocol {
                    Protocol::Pcp => pcp::unmap(target, nonce).await,
                    Protocol::NatPmp => natpmp::unmap(target).await,
                    // There the address is asked for first.
                    Protocol::UpnpIgd => Ok(()),
                };
                unmapped.unwrap_or_else(|refused| tracing::debug!(?refused, "a mapping of no use is not taken back"));
                return Err(Refused::NotPublic(ip));
            }
            // A no says more than silence.
            Err(Refused::No(why)) => refused = Refused::No(why),
            Err(Refused::Unsupported) if refused == Refused::Silent => refused = Refused::Unsupported,
            Err(Refused::Unsupported | Refused::Silent) => {}
        }
    }
    Err(refused)
}

async fn grant(
    target: &Target,
    way: Way,
    asked: impl Future<Output = Result<Granted, Refused>>,
) -> Result<Held, Refused> {
    Ok(Held { target: *target, way, granted: asked.await? })
}

/// Asks for a mapping to go on.
async fn renew(held: &Held, nonce: &[u8; 12]) -> Result<Held, Refused> {
    let Held { target, way, granted } = held;
    let granted = match way {
        Way::Pcp => pcp::map(target, nonce, Some(granted.outside)).await?,
        Way::NatPmp => natpmp::map(target, Some(granted.outside.port())).await?,
        Way::Upnp(device) => upnp::map(device, target, Some(granted.outside.port())).await?,
    };
    Ok(Held { granted, ..held.clone() })
}

/// Gives a mapping back.
async fn release(held: Held, nonce: [u8; 12]) {
    let released = timeout(RELEASE, async {
        match &held.way {
            Way::Pcp => pcp::unmap(&held.target, &nonce).await,
            Way::NatPmp => natpmp::unmap(&held.target).await,
            Way::Upnp(device) => upnp::unmap(device, held.granted.outside.port()).await,
        }
    });
    match released.await {
        Ok(Ok(())) => tracing::info!(outside = %held.granted.outside, "the router's port is given back"),
        // It ends by itself soon.
        Ok(Err(refused)) => tracing::info!(outside = %held.granted.outside, ?refused, "the router keeps its port"),
        Err(_) => tracing::info!(outside = %held.granted.outside, "the router does not take its port back in time"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn target(port: u16) -> Target {
        // Nobody is there.
        Target { router: Ipv4Addr::LOCALHOST, client: Ipv4Addr::LOCALHOST, interface: None, port }
    }

    fn held(seconds: u64) -> Held {
        let granted = Granted { outside: "198.51.100.7:9".parse().unwrap(), lifetime: Duration::from_secs(seconds) };
        Held { target: target(9), way: Way::NatPmp, granted }
    }

    fn keeper() -> Keeper {
        Keeper {
            nonce: [7; 12],
            target: Some(target(9)),
            held: None,
            due: Some(Instant::now()),
            asked: None,
            failures: 0,
            favourite: None,
            announcements: None,
            told: None,
        }
    }

    /// In whole seconds from now.
    fn due(keeper: &Keeper) -> u64 {
        let due = keeper.due.expect("something is to be asked");
        (due + Duration::from_millis(500)).duration_since(Instant::now()).as_secs()
    }

    #[test]
    fn nobody_who_is_silent_is_asked_often() {
        let (mut keeper, mut told) = (keeper(), Vec::new());
        let mut waits = Vec::new();
        for _ in 0..6 {
            keeper.conclude(Err(Refused::Silent), &mut |report| told.push(report));
            waits.push(due(&keeper));
        }
        assert_eq!(waits, [30, 120, 600, 3600, 3600, 3600]);
        assert_eq!(told.len(), 1, "told once: {told:?}");
        // Another network begins anew, the same one too when it may be another.
        keeper.aim(Ok(target(9)), &mut |report| told.push(report));
        assert_eq!(due(&keeper), 0);
        keeper.conclude(Err(Refused::Silent), &mut |report| told.push(report));
        assert_eq!(due(&keeper), 30);
    }

    #[test]
    fn what_is_granted_is_asked_for_again_at_its_half_and_lost_after_three_silences() {
        let (mut keeper, mut told) = (keeper(), Vec::new());
        let outside = "198.51.100.7:9".parse().unwrap();
        let mapped = Report::Mapped { outside, protocol: Protocol::NatPmp };
        for seconds in [600, 40, 20] {
            keeper.conclude(Ok(held(seconds)), &mut |report| told.push(report));
            assert_eq!(due(&keeper), seconds / 2);
        }
        assert_eq!(told, std::slice::from_ref(&mapped), "told once");
        for _ in 0..2 {
            keeper.conclude(Err(Refused::Silent), &mut |report| told.push(report));
            assert_eq!(due(&keeper), 10);
        }
        assert_eq!(told.len(), 1, "a datagram may be lost");
        keeper.conclude(Err(Refused::Silent), &mut |report| told.push(report));
        assert!(matches!(told[1..], [Report::Lost { .. }]) && keeper.held.is_none(), "{told:?}");
        assert_eq!((due(&keeper), keeper.favourite), (5, Some(Protocol::NatPmp)), "it may be had another way");
        keeper.conclude(Ok(held(600)), &mut |report| told.push(report));
        assert_eq!(told[2..], [mapped]);
        keeper.conclude(Err(Refused::No("no resources".into())), &mut |report| told.push(report));
        assert!(matches!(&told[3..], [Report::Lost { why }] if why.contains("no resources")), "at once: {told:?}");
    }

    #[test]
    fn checks_come_five_seconds_apart() {
        let mut keeper = keeper();
        keeper.conclude(Ok(held(600)), &mut |_| {});
        keeper.asked = Some(Instant::now());
        keeper.hasten();
        assert_eq!(due(&keeper), 5);
        keeper.hasten();
        assert_eq!(due(&keeper), 5);
        keeper.asked = Instant::now().checked_sub(Duration::from_secs(60));
        keeper.hasten();
        assert_eq!(due(&keeper), 0);
        // With nothing to ask for, nothing is hastened.
        keeper.held = None;
        keeper.aim(Err("off".into()), &mut |_| {});
        keeper.hasten();
        assert_eq!(keeper.due, None);
    }

    #[test]
    fn end_is_not_held_up_and_what_was_asked_for_is_not_told_any_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (commands, told) = tokio::sync::mpsc::unbounded_channel();
        let mut reports = Vec::new();
        for command in
            [Command::Target(Ok(target(9))), Command::Check, Command::Target(Err("away".into())), Command::Stop]
        {
            commands.send(command).unwrap();
        }
        let begin = Instant::now();
        runtime.block_on(keep([7; 12], told, |report| reports.push(report)));
        assert!(begin.elapsed() < Duration::from_secs(1));
        assert_eq!(reports, [Report::Lost { why: "away".into() }]);
    }
}
