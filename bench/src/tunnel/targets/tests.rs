use super::*;

use std::collections::BTreeMap;

use crate::report::{Absent, SystemInfo};

const TCP: &str = "direct-tcp1-bbr-veth-1380";

/// A round in which each system yielded some figures.
fn round(number: u32, accepted: bool, measures: &[(&str, &[(&str, f64)])]) -> Round {
    let one = |figures: &[(&str, f64)]| figures.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
    let measures = measures.iter().map(|(system, figures)| ((*system).to_owned(), one(figures))).collect();
    Round { number, control_moved: if accepted { 0.0 } else { 1.0 }, accepted, measures }
}

fn cell(name: &str, rounds: Vec<Round>) -> CellReport {
    CellReport {
        name: name.into(),
        about: String::new(),
        point: None,
        reference: REFERENCE.into(),
        rounds,
        outcomes: Vec::new(),
        too_noisy: false,
        unable: Vec::new(),
        failed: Vec::new(),
    }
}

fn report(cells: Vec<CellReport>) -> Report {
    let system = |name: &str, version: &str, ours| SystemInfo {
        name: name.into(),
        version: version.into(),
        ours,
        about: String::new(),
    };
    let systems = vec![
        system(REFERENCE, "0.1.0", true),
        system(RELAYED, "0.1.0", true),
        system(CHACHA, "0.1.0", true),
        system(CONTROL, "6.18", false),
        system(WIREGUARD_GO, WIREGUARD_GO_MIN, false),
        system(NEBULA, "1.6.1", false),
    ];
    Report {
        bench: "tunnel".into(),
        title: String::new(),
        about: String::new(),
        command: String::new(),
        started: 0,
        seconds: 0.0,
        machine: Vec::new(),
        settings: Vec::new(),
        systems,
        absent: vec![Absent { name: "tinc".into(), how: "buy it".into() }],
        figures: Vec::new(),
        headline: "speed".into(),
        cells,
        goals: Vec::new(),
        complete: true,
    }
}

/// One TCP stream: rates and costs of everybody, the machine `faster` than in other rounds.
fn tcp_round(number: u32, accepted: bool, faster: f64) -> Round {
    let one = |gbit_s: f64, cpu: f64| [("gbit_s", gbit_s * faster), ("cpu_s_per_gb", cpu / faster)];
    let (raw, ours, chacha) = (one(10.0, 1.0), one(5.0, 2.5), one(4.0, 3.0));
    let (wireguard, nebula) = (one(1.0, 10.0), one(1.25, 8.0));
    let relayed = [("gbit_s", 4.0 * faster), ("cpu_s_per_gb", 3.0 / faster), ("relay_s_per_gb", 0.4 / faster)];
    let all: [(&str, &[(&str, f64)]); 6] = [
        (CONTROL, &raw),
        (REFERENCE, &ours),
        (CHACHA, &chacha),
        (RELAYED, &relayed),
        (WIREGUARD_GO, &wireguard),
        (NEBULA, &nebula),
    ];
    round(number, accepted, &all)
}

fn tcp_rounds() -> Vec<Round> {
    vec![tcp_round(1, true, 1.0), tcp_round(2, true, 3.0), tcp_round(3, true, 0.5)]
}

/// What was seen of each line, by the beginning of its title.
fn seen(report: &Report, title: &str) -> Goal {
    let all = goals(report);
    let fits: Vec<&Goal> = all.iter().filter(|goal| goal.line.starts_with(title)).collect();
    assert_eq!(fits.len(), 1, "{title}: {:?}", all.iter().map(|goal| &goal.line).collect::<Vec<_>>());
    fits[0].clone()
}

fn median(goal: &Goal) -> f64 {
    let Seen::Median(spread) = goal.seen else { panic!("{goal:?}") };
    spread.median
}

fn nothing(goal: &Goal) -> &str {
    let Seen::Nothing(why) = &goal.seen else { panic!("{goal:?}") };
    why
}

#[test]
fn lines_of_one_stream_are_medians_of_ratios_within_a_round() {
    let report = report(vec![cell(TCP, tcp_rounds())]);
    for (title, wanted, target, stretch) in [
        ("easymesh: goodput, over raw", 0.5, 0.42, 0.6),
        ("easymesh: goodput, over wireguard-go 0.0.20250522", 5.0, 3.5, 5.0),
        ("easymesh-chacha: goodput, over wireguard-go 0.0.20250522", 4.0, 2.5, 4.0),
        ("easymesh: goodput, over nebula 1.6.1", 4.0, 8.0, 12.0),
        ("easymesh: CPU s/GB of the machine, over raw", 2.5, 2.8, 2.0),
        ("easymesh: CPU s/GB of the machine, over wireguard-go", 0.25, 1.0 / 3.5, 0.2),
        ("easymesh-relayed: goodput, over easymesh", 0.8, 0.6, 0.75),
        ("easymesh-relayed: CPU s/GB of the transfer alone", 0.4, 0.5 / 0.9, 0.35 / 0.9),
    ] {
        let goal = seen(&report, title);
        // The machine was three times as fast in one round as in another: no ratio moves.
        assert!((median(&goal) - wanted).abs() < 1e-9, "{title}: {goal:?}");
        assert_eq!((goal.target, goal.stretch, goal.unit.as_str()), (target, Some(stretch), "x"), "{title}");
    }
    let reached: Vec<bool> = goals(&report).iter().map(|goal| goal.reached() == Some(true)).collect();
    assert_eq!(reached.iter().filter(|reached| **reached).count(), 7, "all of these but nebula's");
}

#[test]
fn a_round_that_was_rejected_does_not_count() {
    let mut rounds = tcp_rounds();
    rounds.push(round(4, false, &[(REFERENCE, &[("gbit_s", 100.0)]), (CONTROL, &[("gbit_s", 1.0)])]));
    rounds.push(round(5, false, &[(REFERENCE, &[("gbit_s", 100.0)]), (CONTROL, &[("gbit_s", 1.0)])]));
    let Seen::Median(spread) = seen(&report(vec![cell(TCP, rounds)]), "easymesh: goodput, over raw").seen else {
        panic!("nothing was seen")
    };
    assert_eq!((spread.count, spread.max), (3, 0.5));
}

#[test]
fn what_a_ping_adds_is_what_is_left_without_the_links() {
    let pings = |raw, ours, wireguard| {
        let p50 = |value| [("rtt_p50_us", value)];
        round(1, true, &[(CONTROL, &p50(raw)), (REFERENCE, &p50(ours)), (WIREGUARD_GO, &p50(wireguard))])
    };
    let name = "direct-ping-veth-1380";
    let title = "easymesh: ping added to that of the links, over wireguard-go";
    let goal = seen(&report(vec![cell(name, vec![pings(20.0, 50.0, 120.0), pings(30.0, 70.0, 130.0)])]), title);
    assert!((median(&goal) - 0.35).abs() < 1e-12, "between 0.3 and 0.4: {goal:?}");
    assert_eq!(goal.reached(), Some(true));
    let goal = seen(&report(vec![cell(name, vec![pings(20.0, 50.0, 20.0)])]), title);
    assert_eq!(nothing(&goal), "not measured", "no number is made of a rival that adds nothing");
}

#[test]
fn figures_that_stand_alone_are_told_in_their_unit() {
    let bulk = [("rtt_p99_us", 7_500.0)];
    let report_of = |name: &str, measures: &[(&str, f64)], rival: &[(&str, f64)]| {
        report(vec![cell(name, vec![round(1, true, &[(REFERENCE, measures), (WIREGUARD_GO, rival)])])])
    };
    let goal = seen(&report_of("direct-bulkping-bbr-veth-1380", &bulk, &bulk), "easymesh: ping p99");
    assert_eq!((median(&goal), goal.target, goal.unit.as_str(), goal.reached()), (7.5, 5.0, "ms", Some(false)));
    let report = report_of("direct-udp64-veth-1380", &[("kpps", 500.0)], &[("kpps", 250.0)]);
    let goal = seen(&report, "easymesh: datagrams of 64 bytes each second, over wireguard-go");
    assert_eq!((median(&goal), goal.reached()), (2.0, Some(true)));
}

#[test]
fn other_links_and_cubic_stand_beside() {
    let slower = |by: f64| {
        let one = |gbit_s| [("gbit_s", gbit_s)];
        round(1, true, &[(REFERENCE, &one(5.0 / by)), (CONTROL, &one(10.0))])
    };
    let report = report(vec![
        cell(TCP, tcp_rounds()),
        cell("direct-tcp1-bbr-nic-1380", vec![slower(2.0)]),
        cell("direct-tcp1-cubic-veth-1380", vec![slower(4.0)]),
        cell("relayed-tcp1-bbr-nic-1380", vec![slower(100.0)]),
    ]);
    let beside = |title: &str| {
        let goal = seen(&report, title);
        goal.beside.iter().map(|(name, spread)| (name.clone(), spread.median)).collect::<BTreeMap<_, _>>()
    };
    let wanted = BTreeMap::from([("nic".to_owned(), 0.25), ("cubic".to_owned(), 0.125)]);
    assert_eq!(beside("easymesh: goodput, over raw"), wanted);
    assert!(beside("easymesh: goodput, over nebula").is_empty(), "it was not measured there");
}

#[test]
fn who_was_not_there_is_told() {
    let mut told = report(vec![cell(TCP, tcp_rounds())]);
    assert_eq!(nothing(&seen(&told, "easymesh: goodput, over tinc")), "rival absent");
    told.absent.push(Absent { name: CHACHA.into(), how: "build it".into() });
    assert_eq!(nothing(&seen(&told, "easymesh-chacha: goodput")), "easymesh-chacha absent");
    told.cells[0].failed.push((NEBULA.into(), "it hung".into()));
    told.cells[0].unable.push((RELAYED.into(), "it has no relay".into()));
    assert_eq!(nothing(&seen(&told, "easymesh: goodput, over nebula")), "nebula failed");
    assert_eq!(nothing(&seen(&told, "easymesh-relayed: goodput")), "easymesh-relayed is unable");

    let old = told.systems.iter_mut().find(|info| info.name == WIREGUARD_GO).unwrap();
    old.version = "0.0.20220316".into();
    let goal = seen(&told, "easymesh: goodput, over wireguard-go");
    assert!(nothing(&goal).starts_with("rival absent: this is no 0.0.20250522"), "{goal:?}");
    assert_eq!(goal.reached(), None);
}

#[test]
fn what_nobody_asked_for_is_no_line() {
    let titles = |name| goals(&report(vec![cell(name, tcp_rounds())])).into_iter().map(|goal| goal.line);
    assert_eq!(titles("direct-tcp1-bbr-veth-1408").count() + titles("relayed-tcp1-bbr-veth-1380").count(), 0);
    let told: Vec<String> = titles(TCP).collect();
    assert_eq!(
        told.len(),
        4 + 1 + 4,
        "of the tenfold ones tinc alone was looked for, and there are no pings: {told:?}"
    );
    assert!(told.iter().any(|line| line.ends_with("over tinc")) && !told.iter().any(|line| line.contains("ping")));
}

#[test]
fn a_system_that_yielded_nothing_was_not_measured() {
    let report = report(vec![cell(TCP, vec![round(1, true, &[(REFERENCE, &[("gbit_s", 5.0)])])])]);
    assert_eq!(nothing(&seen(&report, "easymesh: goodput, over raw")), "not measured");
}

#[test]
fn every_line_is_about_cells_of_the_default_run_and_figures_that_there_are() {
    let figures = super::super::trial::figures();
    let known = |key: &str| figures.iter().any(|figure| figure.key == key);
    let systems: Vec<&str> = super::super::systems::all().iter().map(|system| system.name()).collect();
    for line in lines() {
        let inner_mtu = TunnelCell::INNER_MTU_OF_TARGETS;
        let cell = TunnelCell { path: Path::Direct, kind: line.kind, mode: LinkMode::Veth, inner_mtu }.to_string();
        assert!(super::super::cell::DEFAULT.contains(&cell.as_str()), "{cell}");
        for name in [Some(line.ours), line.rival].into_iter().flatten() {
            assert!(systems.contains(&name), "{name}");
        }
        let keys = match line.number {
            Number::Times(key) | Number::Alone(key, _) => vec![key],
            Number::TimesOther(key, other) => vec![key, other],
            Number::AddedDelay => vec!["rtt_p50_us"],
        };
        assert!(keys.into_iter().all(known), "{line:?}");
        if let Some(stretch) = line.stretch {
            assert_eq!(stretch > line.target, line.better == Better::Higher, "{line:?}");
        }
    }
}

#[test]
fn versions_are_compared_by_their_numbers() {
    assert!(is_at_least("0.0.20250522", WIREGUARD_GO_MIN) && is_at_least("0.0.20260101", WIREGUARD_GO_MIN));
    assert!(is_at_least("1.2", "1.2") && is_at_least("1.10", "1.9"));
    assert!(!is_at_least("0.0.20220316", WIREGUARD_GO_MIN) && !is_at_least("", "0.1"));
}
