//! What the machine is and how its network is set: printed with every result.

use std::fs;

/// Reads a file of `/proc` or `/sys` as one line; empty if it is not there.
fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().replace('\n', "; ")
}

/// The machine: processor, cores, memory, kernel, mitigations.
pub fn machine() -> Vec<(String, String)> {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let flags = field(&processors, "flags").unwrap_or_default();
    let flag = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    let crypto: Vec<&str> = ["aes", "vaes", "avx2", "avx512f"].into_iter().filter(|name| flag(name)).collect();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = field(&memory, "MemTotal").and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    let mut rows = vec![
        ("processor", field(&processors, "model name").unwrap_or_else(|| std::env::consts::ARCH.into())),
        ("cores", cores.to_string()),
        ("instructions", crypto.join(" ")),
        ("memory", memory.map_or_else(String::new, |kib| format!("{} GiB", kib.div_ceil(1 << 20)))),
        ("kernel", format!("Linux {}", line("/proc/sys/kernel/osrelease"))),
        ("virtual machine", if flag("hypervisor") { "yes" } else { "no" }.into()),
        ("clock", line("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        ("mitigations", mitigations()),
        ("load before the start", line("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What the kernel does against flaws of the processor, those that are in force; they make system calls dearer.
fn mitigations() -> String {
    let folder = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
    let mut rows: Vec<String> = folder
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            let how = text.trim().strip_prefix("Mitigation: ")?.to_owned();
            Some(format!("{}: {how}", entry.file_name().to_string_lossy()))
        })
        .collect();
    rows.sort_unstable();
    rows.join("; ")
}

/// Settings of the network that are the same for all systems of a run.
pub fn settings() -> Vec<(String, String)> {
    const SYSCTLS: [&str; 8] = [
        "net/core/rmem_default",
        "net/core/rmem_max",
        "net/core/wmem_default",
        "net/core/wmem_max",
        "net/core/netdev_max_backlog",
        "net/core/netdev_budget",
        "net/core/rps_sock_flow_entries",
        "net/ipv4/tcp_congestion_control",
    ];
    let rows = SYSCTLS.iter().map(|name| (name.replace('/', "."), line(&format!("/proc/sys/{name}"))));
    rows.filter(|(_, value)| !value.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let rows = machine();
        let row = |name: &str| rows.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert!(row("cores").unwrap().parse::<usize>().unwrap() > 0);
        assert!(row("kernel").unwrap().starts_with("Linux ") && row("memory").unwrap().ends_with(" GiB"));
        assert!(settings().iter().any(|(name, value)| name == "net.core.rmem_max" && value.parse::<u64>().is_ok()));
    }
}
