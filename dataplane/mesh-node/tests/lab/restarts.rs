//! The transfer comes late, dies, moves; gateways stay.

use std::time::{Duration, Instant};

use anyhow::Result;
use mesh_lab::{Signal, isolated};

use crate::fixture::{NAME, ONE, START, Site, copy_state, start};

const BACK: Duration = Duration::from_secs(3);

#[test]
fn transfer_started_after_the_gateways() {
    isolated(|| {
        let site = Site::new("late", 2)?;
        let mut gateways = [site.start_gateway(0, &[])?, site.start_gateway(1, &[])?];
        for gateway in &mut gateways {
            gateway.wait_for_line("no answer from you.domain.com:8000", Duration::from_secs(6))?;
        }
        let transfer = site.start_transfer("1", &[])?;
        let took = site.ping_until_answered(0, 1, BACK)?;
        println!("traffic {took:?} after the transfer was started");
        drop(transfer);
        assert!(gateways.iter_mut().all(|gateway| matches!(gateway.try_wait(), Ok(None))), "gateways never exit");
        Ok(())
    });
}

#[test]
fn transfer_killed_and_restarted_under_traffic() {
    isolated(|| {
        let site = Site::new("killed", 2)?;
        let mut transfer = site.transfer("10", &[])?;
        let mut gateways = [site.gateway(0, &[])?, site.gateway(1, &[])?];
        assert!(site.ping(0, 1, ONE)?.perfect());
        for round in 0..3 {
            transfer.signal(Signal::SIGKILL)?;
            transfer.wait(START)?;
            // Traffic goes on into the void for as long as it likes.
            for _ in 0..(10 * round + 1) {
                assert!(!site.ping(0, 1, mesh_lab::Ping { timeout: Duration::from_millis(100), ..ONE })?.perfect());
            }
            transfer = site.start_transfer("10", &[])?;
            let took = site.ping_until_answered(0, 1, BACK)?;
            println!("round {round}: traffic {took:?} after the restart");
        }
        assert!(gateways.iter_mut().all(|gateway| matches!(gateway.try_wait(), Ok(None))), "gateways never exit");
        Ok(())
    });
}

#[test]
fn transfer_moved_behind_its_name() {
    isolated(|| {
        let site = Site::new("moved", 3)?;
        let mut transfer = site.transfer("1", &[])?;
        let _gateways = [site.gateway(0, &[])?, site.gateway(1, &[])?];
        assert!(site.ping(0, 1, ONE)?.perfect());
        transfer.kill()?;
        // The transfer takes its keys along: another key behind the name would be refused.
        let new_home = &site.offices[2];
        copy_state(&site.cloud, new_home)?;
        for office in &site.offices {
            office.set_name(NAME, new_home.ipv4()?)?;
        }
        let line = ["-public", NAME, "-bind", "8000", "-nums", "1", "-token", crate::fixture::TOKEN];
        let _transfer = start(new_home, "transfer", &line)?;
        let took = site.ping_until_answered(0, 1, BACK)?;
        println!("traffic {took:?} after the move");
        Ok(())
    });
}

#[test]
fn killed_transfer_binds_all_its_ports_again_at_once() {
    isolated(|| {
        let site = Site::new("ports", 0)?;
        let mut transfer = site.transfer("1000", &[])?;
        let bound = || -> Result<usize> {
            site.cloud.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/udp6")?.lines().count() - 1))
        };
        assert_eq!(bound()?, 1000);
        transfer.signal(Signal::SIGKILL)?;
        transfer.wait(START)?;
        let start = Instant::now();
        let _transfer = site.start_transfer("1000", &[])?;
        while bound()? < 1000 {
            assert!(
                start.elapsed() < Duration::from_millis(1500),
                "{} of 1000 ports after {:?}",
                bound()?,
                start.elapsed()
            );
        }
        println!("1000 ports bound again after {:?}", start.elapsed());
        Ok(())
    });
}
