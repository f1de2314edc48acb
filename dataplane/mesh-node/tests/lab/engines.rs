//! Which engine runs, and what is said where the kernel refuses one.

use anyhow::{Context as _, Result};
use mesh_lab::{Process, isolated};

use crate::fixture::{ONE, START, Site, TOKEN, program, status};
use crate::refuse::without_io_uring;

/// Starts the transfer where io_uring_setup is refused, as most container runtimes do.
fn refused(site: &Site, engine: &str) -> Result<Process> {
    let mut command = site.cloud.command(program("transfer"));
    command.args(["-bind", "8000", "-nums", "1", "-token", TOKEN, "-engine", engine]);
    command.current_dir("/").env_remove("EASYMESH_PROGRAMS").env("EASYMESH_LOG", "/run/state");
    without_io_uring(&mut command);
    site.cloud.spawn(command)
}

#[test]
fn explicit_uring_fails_with_the_cause_where_it_is_refused() {
    isolated(|| {
        let site = Site::new("uring_refused", 0)?;
        let mut transfer = refused(&site, "uring")?;
        assert_eq!(transfer.wait(START)?.code(), Some(1), "{}", transfer.output());
        let said = transfer.output();
        assert!(said.contains("io_uring") && said.contains("mmsg"), "cause and remedy are named: {said}");
        Ok(())
    });
}

#[test]
fn auto_says_why_it_goes_on_with_mmsg() {
    isolated(|| {
        let site = Site::new("auto_refused", 2)?;
        let mut transfer = refused(&site, "auto")?;
        transfer.wait_for_line("join with", START).context("the transfer did not start")?;
        assert!(transfer.output().contains("io_uring"), "the reason is said: {}", transfer.output());
        let status = status(&site.cloud, "transfer")?;
        assert_eq!(status["engine"], "mmsg", "{status:#}");
        let _gateways = [site.gateway(0, &[])?, site.gateway(1, &[])?];
        assert!(site.ping(0, 1, ONE)?.perfect());
        Ok(())
    });
}

#[test]
fn auto_takes_the_ring_here() {
    isolated(|| {
        let site = Site::new("auto", 1)?;
        let _transfer = site.transfer("1", &[])?;
        let _gateway = site.gateway(0, &[])?;
        assert_eq!(status(&site.cloud, "transfer")?["engine"], "uring");
        assert_eq!(status(&site.offices[0], "gateway")?["engine"], "uring");
        Ok(())
    });
}
