//! Programs in hosts: their output, their end, the names they resolve, the state they keep.
#![cfg(target_os = "linux")]

use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use mesh_lab::{Host, Lab, Process, Signal, isolated};

const LONG: Duration = Duration::from_secs(10);

fn shell(host: &Host, script: &str) -> Result<Process> {
    let mut command = host.command("sh");
    command.args(["-c", script]);
    host.spawn(command)
}

#[test]
fn output_is_collected_and_waited_for_in_order() {
    isolated(|| {
        let lab = Lab::new("output")?;
        let a = lab.host("a")?;
        let mut process = shell(&a, "echo one; echo two >&2; sleep 0.1; echo one more; exit 3")?;
        assert_eq!(process.wait_for_line("one", LONG)?, "one");
        assert_eq!(process.wait_for_line("one", LONG)?, "one more");
        let missing = process.wait_for_line("one", LONG).unwrap_err().to_string();
        assert!(missing.contains("until it ended") && missing.contains("one more"), "{missing}");
        assert_eq!(process.wait(LONG)?.code(), Some(3));
        assert!(process.output().contains("two\n"));
        assert!(process.signal(Signal::SIGTERM).is_err());
        let late = shell(&a, "sleep 100")?.wait_for_line("x", Duration::from_millis(50)).unwrap_err().to_string();
        assert!(late.contains("for 50ms"), "{late}");
        assert!(a.spawn(a.command("/no/such/program")).is_err());
        Ok(())
    });
}

#[test]
fn program_is_signalled_measured_and_killed_with_its_handle() {
    isolated(|| {
        let lab = Lab::new("process")?;
        let a = lab.host("a")?;
        let mut process = shell(&a, "trap 'echo bye; exit 7' TERM; echo up; while :; do :; done")?;
        process.wait_for_line("up", LONG)?;
        while process.cpu_time()? < Duration::from_millis(20) {
            std::thread::yield_now();
        }
        assert!((100_000..100_000_000).contains(&process.rss()?), "{}", process.rss()?);
        assert_eq!(process.terminate(LONG)?.code(), Some(7));
        assert!(process.output().ends_with("bye\n"));
        assert!(process.rss().is_err());

        let process = shell(&a, "exec sleep 1000")?;
        let stat = format!("/proc/{}/stat", process.id());
        assert!(Path::new(&stat).exists());
        drop(process);
        assert!(!Path::new(&stat).exists());
        Ok(())
    });
}

#[test]
fn program_started_on_a_thread_outlives_the_thread() {
    isolated(|| {
        let lab = Lab::new("threads")?;
        let a = lab.host("a")?;
        let mut process = std::thread::scope(|scope| scope.spawn(|| shell(&a, "read x; echo woke")).join().unwrap())?;
        assert_eq!(process.wait(LONG)?.code(), Some(0));
        assert_eq!(process.output(), "woke\n");
        let mut process =
            std::thread::scope(|scope| scope.spawn(|| shell(&a, "sleep 0.3; echo late")).join().unwrap())?;
        assert_eq!(process.wait_for_line("late", LONG)?, "late");
        Ok(())
    });
}

#[test]
fn program_keeps_the_working_directory_and_sees_its_own_network_and_run() {
    isolated(|| {
        let lab = Lab::new("place")?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        lab.link(&a, &b, &["10.1.0.0/24"])?;
        let here = std::env::current_dir()?;
        assert_eq!(a.command("pwd").output()?.stdout, format!("{}\n", here.display()).into_bytes());
        for (host, present) in [(&a, true), (&lab.host("c")?, false)] {
            let listed = String::from_utf8(host.command("cat").arg("/proc/net/dev").output()?.stdout)?;
            assert_eq!(listed.contains("eth0:"), present, "{host:?}: {listed}");
        }
        let state = |host: &Host| shell(host, "cat $STATE_DIRECTORY/* ; echo $STATE_DIRECTORY > $STATE_DIRECTORY/key");
        assert!(state(&a)?.wait(LONG)?.success());
        assert!(a.run(|| Ok(Path::new("/run/state/key").exists()))?);
        let mut again = state(&a)?;
        again.wait(LONG)?;
        assert_eq!(again.output(), "/run/state\n", "state lasts from one program of the host to the next");
        let mut other = state(&b)?;
        other.wait(LONG)?;
        assert!(!other.output().contains("/run/state\n"), "and is not shared with other hosts");
        assert!(!Path::new("/run/state").exists());
        Ok(())
    });
}

#[test]
fn running_program_sees_a_changed_name() {
    isolated(|| {
        let lab = Lab::new("names")?;
        let (a, b) = (lab.host("a")?, lab.host("b")?);
        let look_up = |host: &Host| host.run(|| Ok(("you.domain.com", 80).to_socket_addrs().map(|mut all| all.next())));
        assert!(look_up(&a)?.is_err(), "an unknown name fails");
        a.set_name("you.domain.com", "10.1.0.7".parse()?)?;
        assert_eq!(look_up(&a)?.unwrap(), Some("10.1.0.7:80".parse()?));
        assert!(look_up(&b)?.is_err(), "names belong to one host");

        // One process that asks again and again, through the C library.
        let mut process = shell(&a, "while :; do getent hosts you.domain.com || echo unknown; sleep 0.02; done")?;
        process.wait_for_line("10.1.0.7", LONG)?;
        a.set_name("you.domain.com", "10.1.0.8".parse()?)?;
        process.wait_for_line("10.1.0.8", LONG)?;
        a.remove_name("you.domain.com")?;
        process.wait_for_line("unknown", LONG)?;

        let before = std::fs::read("/etc/hosts")?;
        a.set_name("other.domain.com", "::1".parse()?)?;
        assert_eq!(std::fs::read("/etc/hosts")?, before, "the machine's own file is left alone");
        assert!(a.set_name("two words", "10.1.0.7".parse()?).is_err());
        Ok(())
    });
}

#[test]
fn running_thread_of_one_process_sees_a_changed_name() {
    isolated(|| {
        let lab = Lab::new("resolver")?;
        let a = lab.host("a")?;
        a.set_name("you.domain.com", "10.1.0.7".parse()?)?;
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| -> Result<()> {
            let host = a.clone();
            scope.spawn(move || {
                host.run(|| {
                    for () in asked {
                        tell.send(("you.domain.com", 80).to_socket_addrs()?.next())?;
                    }
                    Ok(())
                })
            });
            ask.send(())?;
            assert_eq!(told.recv_timeout(LONG)?, Some("10.1.0.7:80".parse()?));
            a.set_name("you.domain.com", "10.1.0.8".parse()?)?;
            ask.send(())?;
            assert_eq!(told.recv_timeout(LONG)?, Some("10.1.0.8:80".parse()?));
            drop(ask);
            Ok(())
        })
    });
}
