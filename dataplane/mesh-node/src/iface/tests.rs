//! Interfaces of a machine that is written down, and those of this one.

use super::*;

/// An address that can be used, `192.168.3.2/24`.
pub(crate) fn network(text: &str) -> Network {
    let (address, prefix) = text.split_once('/').unwrap();
    Network {
        address: address.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
        broadcast: None,
        usable: true,
        deprecated: false,
        temporary: false,
    }
}

/// An interface that is up.
pub(crate) fn interface(index: u32, name: &str, networks: &[&str]) -> Interface {
    Interface {
        index,
        name: name.into(),
        up: true,
        loopback: name == "lo",
        multicast: name != "lo",
        ours: name.starts_with(OURS_PREFIX),
        mtu: Some(if name == "lo" { 65_536 } else { 1500 }),
        networks: networks.iter().map(|text| network(text)).collect(),
    }
}

pub(crate) fn machine() -> Vec<Interface> {
    vec![
        interface(1, "lo", &["127.0.0.1/8", "::1/128"]),
        interface(2, "ens3", &["192.168.3.2/24", "fe80::1/64", "2001:db8::2/64"]),
        interface(3, "docker0", &["172.17.0.1/16"]),
        interface(4, "wlan0", &["fe80::2/64"]),
    ]
}

#[test]
fn an_interface_is_found_by_name_and_by_address() {
    for (wanted, preferred) in
        [("ens3", None), ("192.168.3.2", Some("192.168.3.2")), ("2001:db8::2", Some("2001:db8::2"))]
    {
        let preferred = preferred.map(|address| address.parse().unwrap());
        let found = Outside::Interface { name: "ens3".into(), preferred };
        assert_eq!(choose(&machine(), wanted, true), Ok(found), "{wanted}");
    }
    let unlisted = Outside::Interface { name: "10.0.0.1".into(), preferred: Some([10, 0, 0, 1].into()) };
    assert_eq!(choose(&[], "10.0.0.1", true), Ok(unlisted));
}

#[test]
fn what_is_sent_comes_from_an_address_that_stays() {
    let mut ens3 = machine().remove(1);
    assert_eq!(usable(&ens3), (Some([192, 168, 3, 2].into()), Some("2001:db8::2".parse().unwrap())));
    ens3.networks[2].deprecated = true;
    ens3.networks.push(network("2001:db8::3/64"));
    assert_eq!(usable(&ens3).1, Some("2001:db8::3".parse().unwrap()));
    ens3.networks[3].usable = false;
    assert_eq!(usable(&ens3).1, Some("2001:db8::2".parse().unwrap()), "rather one that goes than none");
}

#[test]
fn only_the_default_may_be_missing() {
    assert_eq!(choose(&machine(), "eth0", false), Ok(Outside::Routed));
    for wanted in ["eth0", "wlan0", "10.0.0.1"] {
        let why = choose(&machine(), wanted, true).unwrap_err();
        assert!(why.contains(wanted) && why.ends_with("give one of ens3 (192.168.3.2), docker0 (172.17.0.1)"), "{why}");
    }
}

#[test]
fn an_overlap_is_named() {
    let named = |ip: &str, prefix| {
        overlap(&machine(), ip.parse().unwrap(), prefix).map(|(interface, _)| interface.name.clone())
    };
    assert_eq!(named("172.168.0.1", 16), None);
    assert_eq!(named("172.17.3.1", 24).as_deref(), Some("docker0"));
    assert_eq!(named("172.16.0.1", 12).as_deref(), Some("docker0"));
    assert_eq!(named("192.168.0.1", 16).as_deref(), Some("ens3"));
    assert_eq!(named("192.168.4.1", 24), None);
}

#[test]
fn public_space_is_known() {
    for (ip, public) in [
        ("172.168.0.1", true),
        ("172.31.0.1", false),
        ("10.0.0.1", false),
        ("100.64.0.1", false),
        ("192.168.1.1", false),
        ("11.0.0.1", true),
    ] {
        assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
    }
}

#[test]
fn several_addresses_are_counted_by_family() {
    let mut machine = machine();
    assert!(has_several_addresses(&machine));
    machine.retain(|interface| interface.name != "docker0");
    assert!(!has_several_addresses(&machine));
}

#[cfg(target_os = "linux")]
#[test]
fn this_machine_has_a_loopback_and_a_route_to_itself() {
    let interfaces = list().unwrap();
    assert!(interfaces.iter().any(|interface| interface.loopback && interface.name == "lo"), "{interfaces:?}");
    let address = IpAddr::from([127, 0, 0, 1]);
    let route = Route { interface: Some("lo".into()), address };
    assert_eq!(route_to("127.0.0.7:9".parse().unwrap()), Some(route.clone()));
    let by_loopback = Outside::Interface { name: "lo".into(), preferred: None };
    assert_eq!(route_by(&by_loopback, "127.0.0.7:9".parse().unwrap()), Some(route));
    let other = Outside::Interface { name: "no-such".into(), preferred: None };
    assert_eq!(route_by(&other, "127.0.0.7:9".parse().unwrap()), None);
}

#[test]
fn the_holder_of_an_address_is_named() {
    assert_eq!(holder(&machine(), "2001:db8::2".parse().unwrap()).as_deref(), Some("ens3"));
    assert_eq!(holder(&machine(), "10.9.9.9".parse().unwrap()), None);
}
