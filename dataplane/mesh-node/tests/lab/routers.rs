//! Routers that are broken, or hostile: written here, as no real one is so bad. They speak PCP (RFC 6887), NAT-PMP (RFC 6886) and
//! UPnP (IGD:1) on the wire as far as it takes.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Host, Nat, isolated};

use crate::fixture::START;
use crate::mapping::Home;

/// How long it may take until nobody is left to ask.
const GIVEN_UP: Duration = Duration::from_secs(15);

const PUBLIC: [u8; 4] = [44, 1, 1, 2];

/// What was asked, with the time.
type Asked = Arc<Mutex<Vec<(Instant, Vec<u8>)>>>;

fn so_far(asked: &Asked) -> Vec<(Instant, Vec<u8>)> {
    asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Answers each datagram at a port of a host with what `answer` makes of it, until the test ends.
fn serve(
    host: &Host,
    port: u16,
    group: Option<Ipv4Addr>,
    mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> Result<Asked> {
    let socket = host.udp(SocketAddr::from(([0, 0, 0, 0], port)))?;
    if let Some(group) = group {
        let own = host.interfaces().last().context("an interface")?.addresses()[0].address();
        let IpAddr::V4(own) = own else { anyhow::bail!("no IPv4") };
        socket.join_multicast_v4(&group, &own)?;
    }
    let asked = Asked::default();
    let notes = Arc::clone(&asked);
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = &buffer[..length];
            notes.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), question.to_vec()));
            for bytes in answer(question) {
                // Whoever asked may be gone.
                let _ = socket.send_to(&bytes, from);
            }
        }
    });
    Ok(asked)
}

/// A good answer to a PCP request, to be spoilt.
fn pcp(request: &[u8], lifetime: u32, port: u16, ip: [u8; 4]) -> Vec<u8> {
    let mut bytes = request.to_vec();
    bytes[1] |= 0x80;
    bytes[2..4].fill(0);
    bytes[4..8].copy_from_slice(&lifetime.to_be_bytes());
    bytes[8..24].fill(0);
    bytes[42..44].copy_from_slice(&port.to_be_bytes());
    bytes[44..60].copy_from_slice(&Ipv4Addr::from(ip).to_ipv6_mapped().octets());
    bytes
}

fn is_pcp(question: &[u8]) -> bool {
    question.len() == 60 && question[0] == 2
}

fn lifetime_asked(question: &[u8]) -> u32 {
    u32::from_be_bytes(*question[4..].first_chunk().expect("60 bytes"))
}

/// What the router answers to all but PCP: NAT-PMP's "unsupported".
const NO_NATPMP: [u8; 8] = [0, 0x81, 0, 5, 0, 0, 0, 9];

/// Serves PCP on a host.
fn serve_pcp(host: &Host, mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Result<Asked> {
    serve(host, 5351, None, move |question| if is_pcp(question) { answer(question) } else { vec![NO_NATPMP.to_vec()] })
}

/// Runs a gateway at a router that answers PCP like this; what its status says of the mapping in the end, and what was asked.
fn met(name: &str, answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static, end: &str) -> Result<(String, Asked)> {
    let home = Home::new(name, Nat::PortRestricted)?;
    let asked = serve_pcp(&home.router, answer)?;
    let mut gateway = home.gateway(&[])?;
    let mapping = home.mapping(end, GIVEN_UP)?;
    gateway.terminate(START)?;
    println!("{name}: {mapping}");
    let text = |field: &str| mapping[field].as_str().unwrap_or_default().to_owned();
    Ok((text(if end == "mapped" { "outside" } else { "why" }), asked))
}

#[test]
fn what_a_router_must_not_say_is_refused() {
    isolated(|| {
        let (why, asked) = met("private", |question| vec![pcp(question, 600, 5000, [10, 64, 0, 9])], "none")?;
        assert!(why.contains("10.64.0.9") && why.contains("not public"), "{why}");
        let given_back = so_far(&asked).iter().any(|(_, question)| is_pcp(question) && lifetime_asked(question) == 0);
        assert!(given_back, "what is of no use is given back");

        let (why, _) = met("port-0", |question| vec![pcp(question, 600, 0, PUBLIC)], "none")?;
        assert!(why.contains("port 0"), "{why}");
        let (why, _) = met("short", |question| vec![pcp(question, 3, 5000, PUBLIC)], "none")?;
        assert!(why.contains("3 s"), "{why}");
        let (why, _) = met(
            "refusing",
            |question| {
                let mut no = pcp(question, 30, 0, PUBLIC);
                no[3] = 2;
                vec![no]
            },
            "none",
        )?;
        assert!(why.contains("not authorized"), "{why}");
        Ok(())
    });
}

#[test]
fn answers_to_something_else_are_passed_over_until_the_right_one_comes() {
    isolated(|| {
        let spoilt = |question: &[u8]| {
            let good = pcp(question, u32::MAX, 5000, PUBLIC);
            let mut answers = vec![vec![], vec![2], vec![0xff; 1100], question.to_vec(), good[..59].to_vec()];
            // Another's nonce, protocol, port.
            for at in [24, 36, 40] {
                let mut other = good.clone();
                other[at] ^= 1;
                answers.push(other);
            }
            answers.extend((0..200).map(|number| vec![number; 60]));
            answers.push(good);
            answers
        };
        let (outside, asked) = met("noisy", spoilt, "mapped")?;
        assert_eq!(outside, "44.1.1.2:5000");
        // Mapped, then given back; asked once each, however long the router says that it lasts.
        let lifetimes: Vec<u32> = so_far(&asked).iter().map(|(_, question)| lifetime_asked(question)).collect();
        assert_eq!(lifetimes, [600, 0]);
        Ok(())
    });
}

#[test]
fn mapping_is_renewed_at_half_of_what_was_granted() {
    isolated(|| {
        let home = Home::new("renewed", Nat::PortRestricted)?;
        let asked = serve_pcp(&home.router, |question| vec![pcp(question, 20, 5000, PUBLIC)])?;
        let _gateway = home.gateway(&[])?;
        home.mapping("mapped", GIVEN_UP)?;
        let begin = Instant::now();
        while so_far(&asked).len() < 2 {
            ensure!(begin.elapsed() < Duration::from_secs(12), "not renewed");
            thread::yield_now();
        }
        let asked = so_far(&asked);
        let after = asked[1].0 - asked[0].0;
        assert!((Duration::from_millis(9900)..Duration::from_millis(11_500)).contains(&after), "{after:?}");
        let mapping = home.mapping("mapped", Duration::ZERO)?;
        assert_eq!(mapping["outside"], "44.1.1.2:5000", "{mapping}");
        Ok(())
    });
}

/// An answer to a search by multicast that names a description.
fn found(location: &str) -> Vec<Vec<u8>> {
    let text = format!(
        "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\
         USN: uuid:1::urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nEXT:\r\nSERVER: x UPnP/1.1 x\r\n\
         LOCATION: {location}\r\n\r\n"
    );
    vec![text.into_bytes()]
}

/// A description of a gateway, as IGD:1 wants it.
const DESCRIPTION: &str = "<?xml version=\"1.0\"?><root xmlns=\"urn:schemas-upnp-org:device-1-0\"><device>\
    <deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType><deviceList><device>\
    <deviceType>urn:schemas-upnp-org:device:WANDevice:1</deviceType><deviceList><device>\
    <deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:1</deviceType><serviceList><service>\
    <serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/control</controlURL>\
    <SCPDURL>/scpd</SCPDURL></service></serviceList></device></deviceList></device></deviceList></device></root>";

/// Takes TCP connections on a host and writes what `answer` makes of the first line of the request; the lines.
fn listen(
    host: &Host,
    port: u16,
    answer: impl Fn(&str, &mut dyn std::io::Write) -> std::io::Result<()> + Send + Sync + 'static,
) -> Result<Arc<Mutex<Vec<String>>>> {
    let listener = host.run(move || Ok(TcpListener::bind(("0.0.0.0", port))?))?;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (notes, answer) = (Arc::clone(&lines), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (notes, answer) = (Arc::clone(&notes), Arc::clone(&answer));
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                let length = stream.read(&mut buffer).unwrap_or(0);
                let line = String::from_utf8_lossy(&buffer[..length]).lines().next().unwrap_or_default().to_owned();
                notes.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
                // The other side may close it at any time.
                let _ = answer(&line, &mut stream);
            });
        }
    });
    Ok(lines)
}

const SSDP: Option<Ipv4Addr> = Some(Ipv4Addr::new(239, 255, 255, 250));

fn lines(notes: &Arc<Mutex<Vec<String>>>) -> Vec<String> {
    notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

#[test]
fn router_that_writes_without_end_is_left() {
    isolated(|| {
        let home = Home::new("endless", Nat::PortRestricted)?;
        serve(&home.router, 1900, SSDP, |_| found("http://10.9.0.1:5000/root.xml"))?;
        let asked = listen(&home.router, 5000, |_, stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n\r\n<root>")?;
            loop {
                stream.write_all(&[b'<'; 4096])?;
            }
        })?;
        let mut gateway = home.gateway(&[])?;
        let before = gateway.rss()?;
        let begin = Instant::now();
        home.mapping("none", GIVEN_UP)?;
        assert!(!lines(&asked).is_empty(), "it was asked");
        let grown = gateway.rss()?.saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes were kept");
        println!("left after {:?}, {grown} bytes more", begin.elapsed());
        gateway.terminate(START)?;
        Ok(())
    });
}

#[test]
fn router_that_accepts_and_says_nothing_delays_neither_the_mapping_nor_the_end() {
    isolated(|| {
        let home = Home::new("mute", Nat::PortRestricted)?;
        serve(&home.router, 1900, SSDP, |_| found("http://10.9.0.1:5000/root.xml"))?;
        let asked = listen(&home.router, 5000, |_, stream| {
            // Until the other side has had enough.
            mesh_lab::pause(Duration::from_secs(60));
            stream.flush()
        })?;
        let mut gateway = home.gateway(&[])?;
        let begin = Instant::now();
        while lines(&asked).is_empty() {
            ensure!(begin.elapsed() < GIVEN_UP, "it is not asked");
            thread::yield_now();
        }
        let begin = Instant::now();
        gateway.terminate(START)?;
        assert!(begin.elapsed() < Duration::from_millis(1500), "{:?}", begin.elapsed());
        Ok(())
    });
}

/// A neighbour of the office who answers each search as if it were the router, at once; who asked it for what.
fn neighbour(home: &mut Home) -> Result<(Host, Arc<Mutex<Vec<String>>>)> {
    let neighbour = home.lab.host("neighbour")?;
    home.lan.attach(&neighbour, &["10.9.0.66/24"])?;
    serve(&neighbour, 1900, SSDP, |_| found("http://10.9.0.66:5000/root.xml"))?;
    let asked = listen(&neighbour, 5000, describe)?;
    Ok((neighbour, asked))
}

fn describe(line: &str, stream: &mut dyn std::io::Write) -> std::io::Result<()> {
    let body = if line.contains("root.xml") { DESCRIPTION } else { "<scpd><actionList/></scpd>" };
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn whoever_is_not_the_router_is_neither_believed_nor_visited() {
    isolated(|| {
        // The router sends the gateway elsewhere, and a neighbour says that it is the router.
        let mut home = Home::new("elsewhere", Nat::PortRestricted)?;
        serve(&home.router, 1900, SSDP, |_| found("http://44.1.1.3:5000/root.xml"))?;
        let elsewhere = listen(&home.stranger, 5000, describe)?;
        let (_neighbour, posing) = neighbour(&mut home)?;
        let mut gateway = home.gateway(&[])?;
        home.mapping("none", GIVEN_UP)?;
        assert_eq!(lines(&elsewhere), [""; 0], "nobody is visited whom a router names");
        let posing = lines(&posing);
        assert!(
            !posing.is_empty() && posing.iter().all(|line| line.starts_with("GET")),
            "nothing is asked for: {posing:?}"
        );
        gateway.terminate(START)?;
        Ok(())
    });
}

#[test]
fn neighbour_that_answers_first_does_not_keep_the_router_from_being_found() {
    isolated(|| {
        let mut home = Home::new("first", Nat::PortRestricted)?;
        let _daemon = home.daemon(false, true)?;
        let (_neighbour, _posing) = neighbour(&mut home)?;
        let _gateway = home.gateway(&[])?;
        let mapping = home.mapping("mapped", GIVEN_UP)?;
        assert_eq!(mapping["protocol"], "upnp-igd");
        Ok(())
    });
}

#[test]
fn announcement_that_is_not_of_the_routers_service_is_not_heard() {
    isolated(|| {
        let home = Home::new("announced", Nat::PortRestricted)?;
        let asked = serve_pcp(&home.router, |question| vec![pcp(question, 600, 5000, PUBLIC)])?;
        let _gateway = home.gateway(&[])?;
        home.mapping("mapped", GIVEN_UP)?;
        let announce = |host: &Host, port: u16| -> Result<UdpSocket> {
            let socket = host.udp(SocketAddr::from(([0, 0, 0, 0], port)))?;
            socket.send_to(&[0, 128, 0, 0, 0, 0, 0, 1, 44, 1, 1, 3], home.office_address(5350)?)?;
            Ok(socket)
        };
        // From a port of the router's that is not that of its service.
        announce(&home.router, 0)?;
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(6) {
            ensure!(so_far(&asked).len() == 1, "asked again for nothing");
            mesh_lab::pause(Duration::from_millis(50));
        }
        Ok(())
    });
}
