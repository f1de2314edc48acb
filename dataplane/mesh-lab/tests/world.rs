//! The private world: nothing outside is touched, nothing is left, and no privilege is needed.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::panic::catch_unwind;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use mesh_lab::{Lab, Ping, inside, isolated};
use nix::unistd::geteuid;

/// The user "nobody" of every Linux system.
const NOBODY: u32 = 65_534;

/// Tells a copy of this test binary that it is to play a part in a test.
const PART: &str = "TEST_PART";

/// This test binary, to be run for one test.
fn own_test(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--exact", name, "--nocapture"]).env(PART, "1").env_remove("MESH_LAB_TEST");
    command
}

fn plays_a_part() -> bool {
    std::env::var_os(PART).is_some()
}

fn ping_between_two() -> anyhow::Result<()> {
    let lab = Lab::new("two")?;
    let (a, b) = (lab.host("a")?, lab.host("b")?);
    lab.link(&a, &b, &["10.1.0.0/24", "fd01::/64"])?;
    a.set_name("b.example", b.ipv4()?)?;
    assert!(a.ping(b.ipv4()?, Ping::default())?.perfect());
    assert!(a.ping(b.ipv6()?, Ping::default())?.perfect());
    assert!(a.command("true").status()?.success());
    let capture = a.capture("eth0")?;
    assert!(b.ping(a.ipv4()?, Ping::default())?.perfect());
    assert!(capture.stop()?.frames.len() >= 6);
    Ok(())
}

#[test]
fn laboratory_needs_a_private_world() {
    assert!(!inside());
    assert!(Lab::new("outside").unwrap_err().to_string().contains("isolated"));
}

#[test]
fn body_that_fails_fails_the_test() {
    // In the copy the body runs, so what is checked here is the process outside.
    let failed = catch_unwind(|| isolated(|| anyhow::bail!("as it should")));
    if std::env::var_os("MESH_LAB_TEST").is_some() {
        std::panic::resume_unwind(failed.unwrap_err());
    }
    let message = *failed.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("failed inside its private world (exit status: 101)"), "{message}");
}

#[test]
fn body_in_a_function_that_is_no_test_fails() {
    fn helper() {
        isolated(|| Ok(()));
    }
    let message = *catch_unwind(helper).unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("found no test named"), "{message}");
}

#[test]
fn world_has_its_own_processes_run_and_mounts() {
    let outside = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    let variable = "TEST_OUTSIDE";
    if plays_a_part() {
        isolated(|| {
            assert_ne!(fs::read_link("/proc/self/ns/net")?.display().to_string(), std::env::var("TEST_OUTSIDE")?);
            let processes = fs::read_dir("/proc")?.flatten().filter(|entry| entry.path().join("stat").exists());
            let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
            let numbers: BTreeSet<u32> = names.filter_map(|name| name.parse().ok()).collect();
            assert_eq!(numbers, BTreeSet::from([1, std::process::id()]), "the init and this process");
            fs::write("/run/only-inside", "")?;
            Ok(())
        });
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut command = own_test("world_has_its_own_processes_run_and_mounts");
    assert!(command.env(variable, outside).status().unwrap().success());
    assert!(!Path::new("/run/only-inside").exists());
    assert_eq!(fs::read_to_string("/proc/self/mounts").unwrap(), mounts);
}

#[test]
fn program_enters_once_and_its_status_is_passed_on() {
    let test = "program_enters_once_and_its_status_is_passed_on";
    if let Some(code) = std::env::var_os(PART) {
        mesh_lab::enter().unwrap();
        assert!(inside() && geteuid().is_root());
        mesh_lab::enter().unwrap();
        std::process::exit(code.to_str().unwrap().parse().unwrap());
    }
    for code in [0, 42] {
        let status = own_test(test).env(PART, code.to_string()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(code));
    }
}

#[test]
fn person_outside_steps_into_a_host() {
    if plays_a_part() {
        return isolated(|| {
            let lab = Lab::new("step")?;
            let (a, b) = (lab.host("a")?, lab.host("b")?);
            lab.link(&a, &b, &["10.1.0.0/24"])?;
            a.set_name("b.example", b.ipv4()?)?;
            eprintln!("STEP {}", a.step_in()?);
            loop {
                std::thread::park();
            }
        });
    }
    for user_namespace in ["0", "1"] {
        let mut lab = own_test("person_outside_steps_into_a_host");
        let lab = lab.env("MESH_LAB_USER_NS", user_namespace).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut lab = lab.spawn().unwrap();
        let mut lines = BufReader::new(lab.stderr.take().unwrap()).lines().map(Result::unwrap);
        let step = lines.find_map(|line| line.strip_prefix("STEP ").map(str::to_owned)).unwrap();
        let shell = format!("{step} cat /proc/net/dev /etc/hosts");
        let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
        lab.kill().unwrap();
        lab.wait().unwrap();
        let text = text_of(&output);
        assert!(text.contains("eth0:") && text.contains("10.1.0.2 b.example"), "{shell}: {text}");
    }
}

#[test]
fn user_without_privileges_gets_a_laboratory() {
    if geteuid().is_root() && !inside() {
        let mut command = own_test("user_without_privileges_gets_a_laboratory");
        let output = command.current_dir("/").uid(NOBODY).gid(NOBODY).output().unwrap();
        let text = text_of(&output);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        eprintln!("{text}");
        return;
    }
    isolated(|| {
        assert!(geteuid().is_root() && has_user_namespace());
        ping_between_two()?;
        // Whether /dev/net/tun is open to all is the machine's choice; if not, the error says what to do.
        match Lab::new("tun")?.host("a")?.check_tun() {
            Ok(()) => eprintln!("TUN interfaces can be made"),
            Err(error) => {
                let text = format!("{error:#}");
                assert!(text.contains("/dev/net/tun") && text.contains("as root"), "{text}");
                eprintln!("{text}");
            }
        }
        Ok(())
    });
}

#[test]
fn tun_can_be_made_in_a_user_namespace() {
    if !plays_a_part() && !inside() {
        return again_with_own_limits("tun_can_be_made_in_a_user_namespace");
    }
    isolated(|| {
        assert!(has_user_namespace());
        ping_between_two()?;
        let host = Lab::new("tun")?.host("a")?;
        // The device's owner is mapped into this namespace when root runs the test.
        let open = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        match (host.check_tun(), open) {
            (Ok(()), Ok(_)) => Ok(()),
            (Err(error), Err(_)) if format!("{error:#}").contains("as root") => Ok(()),
            (tun, open) => anyhow::bail!("check_tun says {tun:?}, opening the device says {open:?}"),
        }
    });
}

/// Runs a test again in a world with a user namespace, where the limits on namespaces are the test's own to set.
fn again_with_own_limits(test: &str) {
    let output = own_test(test).env("MESH_LAB_USER_NS", "1").output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
}

#[test]
fn refused_namespaces_are_named_with_their_knob() {
    if std::env::var_os("TEST_REFUSED").is_some() {
        return isolated(|| Ok(()));
    }
    if !plays_a_part() && !inside() {
        return again_with_own_limits("refused_namespaces_are_named_with_their_knob");
    }
    isolated(|| {
        for knob in ["max_net_namespaces", "max_user_namespaces"] {
            let path = format!("/proc/sys/user/{knob}");
            let before = fs::read_to_string(&path)?;
            fs::write(&path, "0")?;
            let mut command = own_test("refused_namespaces_are_named_with_their_knob");
            let output = command.env("TEST_REFUSED", "1").env("MESH_LAB_USER_NS", "1").output()?;
            let text = text_of(&output);
            assert!(!output.status.success(), "{text}");
            assert!(text.contains(&format!("user.{knob} is 0: run `sysctl -w user.{knob}=10000` as root")), "{text}");
            fs::write(&path, before.trim())?;
        }
        Ok(())
    });
}

#[test]
fn laboratory_works_without_a_process_id_namespace() {
    if std::env::var_os("TEST_WITHOUT").is_some() {
        return isolated(|| {
            assert_ne!(std::os::unix::process::parent_id(), 1, "no init of its own");
            ping_between_two()
        });
    }
    if !plays_a_part() && !inside() {
        return again_with_own_limits("laboratory_works_without_a_process_id_namespace");
    }
    isolated(|| {
        fs::write("/proc/sys/user/max_pid_namespaces", "0")?;
        let output = own_test("laboratory_works_without_a_process_id_namespace").env("TEST_WITHOUT", "1").output()?;
        assert!(output.status.success(), "{}", text_of(&output));
        kill_and_look_for_rests(own_test("nothing_is_left_of_a_killed_laboratory").env("TEST_VICTIM", "1"));
        Ok(())
    });
}

#[test]
fn nothing_is_left_of_a_killed_laboratory() {
    if std::env::var_os("TEST_VICTIM").is_some() {
        return isolated(|| {
            let lab = Lab::new("victim")?;
            let (a, b) = (lab.host("a")?, lab.host("b")?);
            lab.link(&a, &b, &["10.1.0.0/24"])?;
            let mut command = a.command("sleep");
            command.arg("1000");
            let process = a.spawn(command)?;
            for host in [&a, &b] {
                let namespaces = host.run(|| {
                    let link = |kind| fs::read_link(format!("/proc/thread-self/ns/{kind}"));
                    Ok((link("net")?, link("mnt")?))
                })?;
                eprintln!("NAMESPACE {}", namespaces.0.display());
                eprintln!("NAMESPACE {}", namespaces.1.display());
            }
            eprintln!("READY {}", process.id());
            loop {
                std::thread::park();
            }
        });
    }
    kill_and_look_for_rests(own_test("nothing_is_left_of_a_killed_laboratory").env("TEST_VICTIM", "1"));
}

/// Starts a laboratory, kills the process that waits for it, and waits until no process is in its namespaces or
/// holds one of them open.
#[expect(clippy::disallowed_methods, reason = "the kernel tells nobody when it has freed a namespace")]
fn kill_and_look_for_rests(command: &mut Command) {
    let mut victim = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut namespaces = BTreeSet::new();
    for line in BufReader::new(victim.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(namespace) = line.strip_prefix("NAMESPACE ") {
            namespaces.insert(namespace.to_owned());
        } else if line.starts_with("READY") {
            break;
        }
    }
    assert_eq!(namespaces.len(), 4);
    let (held, inhabited) = holders_of(&namespaces);
    assert_eq!(held, namespaces, "all are seen while it lives");
    assert!(inhabited > 0, "the program is seen while it lives");
    victim.kill().unwrap();
    assert_eq!(victim.wait().unwrap().signal(), Some(9));
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (held, inhabited) = holders_of(&namespaces);
        if held.is_empty() && inhabited == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{held:?} are still held, {inhabited} processes still live");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Which of `namespaces` some process is in or holds a descriptor of, and how many processes are in one.
fn holders_of(namespaces: &BTreeSet<String>) -> (BTreeSet<String>, usize) {
    let (mut held, mut inhabited) = (BTreeSet::new(), 0);
    for process in fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()) {
        let links = |folder: &str| fs::read_dir(process.join(folder)).into_iter().flatten().flatten();
        let targets = |folder: &str| -> BTreeSet<String> {
            let all = links(folder).filter_map(|link| Some(fs::read_link(link.path()).ok()?.display().to_string()));
            all.filter(|target| namespaces.contains(target)).collect()
        };
        let (inside, open) = (targets("ns"), targets("fd"));
        inhabited += usize::from(!inside.is_empty());
        held.extend(inside);
        held.extend(open);
    }
    (held, inhabited)
}

fn has_user_namespace() -> bool {
    !fs::read_to_string("/proc/self/uid_map").unwrap().trim_end().ends_with("4294967295")
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
