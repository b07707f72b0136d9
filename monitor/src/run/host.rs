//! What the kernel says of the whole host, once a second: processor time by kind, memory, sockets,
//! TCP's losses.
//!
//! Reports tell what each process costs; most of a push server's cost is the kernel's, which no
//! process reports. The texts of /proc are read in one place and understood by plain functions. A
//! figure that a kernel does not have is absent, never 0. What is under /proc/net is that of the
//! monitor's own network namespace: the run's, where the run has one.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

use crate::run::column::row;

/// What the host is; it does not change while it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostFacts {
    /// As the processor names itself.
    pub cpu_model: Option<String>,
    /// Processors that the kernel uses.
    pub cpus: Option<u64>,
    pub kernel: Option<String>,
    pub memory_bytes: Option<u64>,
}

row! {
/// The columns of `hosts`, in order. Processor time, and all from `listen_overflows` to
/// `out_of_memory_kills`, is what passed since the row before: `span_seconds` ago, and absent in
/// the first row. The rest is as it stood at the second's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct HostSecond prefixed "host_" of(
    moment: &Moment, second: u64, before: Option<(&Moment, Duration)>, units: Units
) {
    /// Unix time.
    second: u64 => First = second,
    span_seconds: Option<f64> => Mean = before.map(|(_, span)| span.as_millis() as f64 / 1_000.0),
    cpu_user_seconds: Option<f64> => Mean = cpu(0),
    cpu_nice_seconds: Option<f64> => Mean = cpu(1),
    cpu_system_seconds: Option<f64> => Mean = cpu(2),
    cpu_irq_seconds: Option<f64> => Mean = cpu(5),
    cpu_softirq_seconds: Option<f64> => Mean = cpu(6),
    /// Taken by the hypervisor while this host wanted to run.
    cpu_steal_seconds: Option<f64> => Mean = cpu(7),
    cpu_iowait_seconds: Option<f64> => Mean = cpu(4),
    cpu_idle_seconds: Option<f64> => Mean = cpu(3),
    memory_total_bytes: Option<u64> => Last = memory("MemTotal"),
    memory_available_bytes: Option<u64> => Last = memory("MemAvailable"),
    slab_bytes: Option<u64> => Last = memory("Slab"),
    /// Anonymous memory of all processes.
    anonymous_bytes: Option<u64> => Last = memory("AnonPages"),
    page_tables_bytes: Option<u64> => Last = memory("PageTables"),
    sockets_used: Option<u64> => Last = sockets("sockets used"),
    tcp_in_use: Option<u64> => Last = sockets("TCP inuse"),
    tcp_orphans: Option<u64> => Last = sockets("TCP orphan"),
    tcp_time_wait: Option<u64> => Last = sockets("TCP tw"),
    /// Memory that TCP has charged for buffers.
    tcp_buffer_bytes: Option<u64> => Last = sockets("TCP mem").map(|pages| pages * units.page_bytes),
    listen_overflows: Option<u64> => Mean = tcp("ListenOverflows"),
    listen_drops: Option<u64> => Mean = tcp("ListenDrops"),
    tcp_retransmits: Option<u64> => Mean = tcp("RetransSegs"),
    tcp_syn_retransmits: Option<u64> => Mean = tcp("TCPSynRetrans"),
    tcp_memory_pressures: Option<u64> => Mean = tcp("TCPMemoryPressures"),
    tcp_aborts_on_memory: Option<u64> => Mean = tcp("TCPAbortOnMemory"),
    tcp_backlog_drops: Option<u64> => Mean = tcp("TCPBacklogDrop"),
    tcp_queue_full_drops: Option<u64> => Mean = tcp("TCPReqQFullDrop"),
    tcp_active_opens: Option<u64> => Mean = tcp("ActiveOpens"),
    tcp_passive_opens: Option<u64> => Mean = tcp("PassiveOpens"),
    tcp_attempt_fails: Option<u64> => Mean = tcp("AttemptFails"),
    tcp_resets_received: Option<u64> => Mean = tcp("EstabResets"),
    /// Of all interfaces of the network namespace, loopback included: a run on one host goes
    /// through that alone.
    net_received_packets: Option<u64> => Mean = network(1),
    net_received_bytes: Option<u64> => Mean = network(0),
    net_sent_packets: Option<u64> => Mean = network(3),
    net_sent_bytes: Option<u64> => Mean = network(2),
    /// Processes that the kernel ended for lack of memory.
    out_of_memory_kills: Option<u64> => Mean = killed(),
    files_open: Option<u64> => Last = moment.files.map(|files| files[0]),
    files_max: Option<u64> => Last = moment.files.map(|files| files[1]),
} where {
    // `before` is the moment of the row before, and how long ago that was.
    let cpu = |index: usize| {
        let (now, then) = (moment.cpu_ticks?, before?.0.cpu_ticks?);
        // Idle time of a virtual processor has been seen to fall by a tick: nothing passed
        // then.
        Some(now[index].saturating_sub(then[index]) as f64 / units.ticks_per_second as f64)
    };
    let tcp = |name: &str| moment.tcp.get(name)?.checked_sub(*before?.0.tcp.get(name)?);
    let killed = || moment.out_of_memory_kills?.checked_sub(before?.0.out_of_memory_kills?);
    let memory = |name: &str| moment.meminfo_bytes.get(name).copied();
    let sockets = |name: &str| moment.sockets.get(name).copied();
    let network = |index: usize| {
        let then = &before?.0.interfaces;
        let passed = |(name, now): (&String, &[u64; 4])| {
            // What a new interface has carried so far is this second's; a total that fell is of
            // one that was made anew.
            now[index].saturating_sub(then.get(name).map_or(0, |then| then[index]))
        };
        (!moment.interfaces.is_empty()).then(|| moment.interfaces.iter().map(passed).sum())
    };
}
}

/// How the kernel counts on this host.
#[derive(Debug, Clone, Copy)]
pub struct Units {
    /// Ticks of processor time in a second.
    pub ticks_per_second: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
}

impl Units {
    pub fn read() -> Self {
        let of = hongbao_telemetry::process::sysconf_or;
        Self { ticks_per_second: of(SysconfVar::CLK_TCK, 100), page_bytes: of(SysconfVar::PAGE_SIZE, 4_096) }
    }
}

/// One moment, understood: totals as the kernel counts them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moment {
    /// user, nice, system, idle, iowait, irq, softirq, steal: ticks since boot.
    cpu_ticks: Option<[u64; 8]>,
    meminfo_bytes: HashMap<String, u64>,
    sockets: HashMap<String, u64>,
    tcp: HashMap<String, u64>,
    /// Received bytes and packets, sent bytes and packets, by interface: one that goes away takes
    /// its totals along.
    interfaces: HashMap<String, [u64; 4]>,
    out_of_memory_kills: Option<u64>,
    files: Option<[u64; 2]>,
}

impl Moment {
    /// Now. A file that cannot be read is empty.
    pub fn read() -> Self {
        Self::parse(|path| fs::read_to_string(path).unwrap_or_default())
    }

    /// Understands the texts of one moment, by their path.
    fn parse(text: impl Fn(&'static str) -> String) -> Self {
        let mut tcp = protocol_counters(&text("/proc/net/netstat"), "TcpExt:");
        tcp.extend(protocol_counters(&text("/proc/net/snmp"), "Tcp:"));
        let out_of_memory = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse().ok();
        Self {
            cpu_ticks: cpu_ticks(&text("/proc/stat")),
            meminfo_bytes: meminfo_bytes(&text("/proc/meminfo")),
            sockets: socket_counts(&text("/proc/net/sockstat")),
            tcp,
            interfaces: text("/proc/net/dev").lines().filter_map(interface).collect(),
            out_of_memory_kills: text("/proc/vmstat").lines().find_map(out_of_memory),
            files: files(&text("/proc/sys/fs/file-nr")),
        }
    }
}

/// The first line of /proc/stat: all processors together. Time of guests is part of user's and
/// needs no column.
fn cpu_ticks(stat: &str) -> Option<[u64; 8]> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut ticks = [0; 8];
    let mut fields = line.split_ascii_whitespace();
    for tick in &mut ticks {
        *tick = fields.next()?.parse().ok()?;
    }
    Some(ticks)
}

/// `Name:   12 kB` lines.
fn meminfo_bytes(meminfo: &str) -> HashMap<String, u64> {
    let line = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let kibibytes: u64 = rest.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some((name.to_owned(), kibibytes * 1024))
    };
    meminfo.lines().filter_map(line).collect()
}

/// `TCP: inuse 1 orphan 0` gives `TCP inuse` and `TCP orphan`.
fn socket_counts(sockstat: &str) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    for (protocol, rest) in sockstat.lines().filter_map(|line| line.split_once(':')) {
        let mut words = rest.split_ascii_whitespace();
        while let (Some(name), Some(count)) = (words.next(), words.next()) {
            if let Ok(count) = count.parse() {
                counts.insert(format!("{protocol} {name}"), count);
            }
        }
    }
    counts
}

/// Two lines with the same prefix: names, then values. Some values are -1 for "none"; those are
/// left out.
fn protocol_counters(text: &str, prefix: &str) -> HashMap<String, u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return HashMap::new() };
    let pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
    pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

/// ` lo: 100 2 0 0 0 0 0 0 300 4 0 …`: received bytes and packets come first, sent ones from the
/// ninth on.
fn interface(line: &str) -> Option<(String, [u64; 4])> {
    let (name, rest) = line.split_once(':')?;
    let fields: Vec<u64> = rest.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
    Some((name.trim().to_owned(), [*fields.first()?, *fields.get(1)?, *fields.get(8)?, *fields.get(9)?]))
}

/// Allocated, unused since Linux 2.6, most. The last of an unlimited host does not fit every
/// reader's integer; it does ours.
fn files(file_nr: &str) -> Option<[u64; 2]> {
    let mut fields = file_nr.split_ascii_whitespace().map(|field| field.parse::<u64>().ok());
    let (allocated, unused, most) = (fields.next()??, fields.next()??, fields.next()??);
    Some([allocated.saturating_sub(unused), most])
}

/// The model of the first processor.
fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl HostFacts {
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpus = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
        let kernel = text("/proc/sys/kernel/osrelease").trim().to_owned();
        Self {
            cpu_model: cpu_model(&text("/proc/cpuinfo")),
            cpus: cpus.and_then(|count| u64::try_from(count).ok()),
            kernel: Some(kernel).filter(|kernel| !kernel.is_empty()),
            memory_bytes: meminfo_bytes(&text("/proc/meminfo")).get("MemTotal").copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: Units = Units { ticks_per_second: 100, page_bytes: 4_096 };

    fn fixture() -> HashMap<&'static str, String> {
        let texts = [
            ("/proc/stat", "cpu  1000 5 400 900 30 2 300 40 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nbtime 1\n"),
            (
                "/proc/meminfo",
                "MemTotal:       24684084 kB\nMemAvailable:   23408464 kB\nSlab:             473256 kB\n\
                 AnonPages:  7 kB\nHugePages_Total:       0\n",
            ),
            (
                "/proc/net/sockstat",
                "sockets: used 25\nTCP: inuse 3 orphan 1 tw 7 alloc 9 mem 159\nUDP: inuse 0 mem 0\n",
            ),
            (
                "/proc/net/netstat",
                "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPMemoryPressures\nTcpExt: 0 4 6 0\n\
                 IpExt: InNoRoutes\nIpExt: 9\n",
            ),
            (
                "/proc/net/snmp",
                "Ip: Forwarding\nIp: 2\n\
                 Tcp: RtoAlgorithm MaxConn ActiveOpens RetransSegs\nTcp: 1 -1 250187 323\n",
            ),
            (
                "/proc/net/dev",
                "Inter-|   Receive    |  Transmit\n face |bytes packets errs|bytes packets\n\
                 \x20   lo: 100 2 0 0 0 0 0 0 300 4 0 0 0 0 0 0\n\
                 eth0:7 1 0 0 0 0 0 0 9 2 0 0 0 0 0 0\n",
            ),
            ("/proc/vmstat", "nr_free_pages 5\noom_kill 3\n"),
            ("/proc/sys/fs/file-nr", "1568\t0\t9223372036854775807\n"),
        ];
        HashMap::from(texts.map(|(path, text)| (path, text.to_owned())))
    }

    /// Writes `to` for `from` in the text of `path`.
    fn replace(texts: &mut HashMap<&'static str, String>, path: &str, from: &str, to: &str) {
        let text = texts.get_mut(path).unwrap();
        *text = text.replace(from, to);
    }

    fn parse(texts: &HashMap<&str, String>) -> Moment {
        Moment::parse(|path| texts.get(path).cloned().unwrap_or_default())
    }

    #[test]
    fn a_first_row_has_what_stands_and_nothing_of_what_passes() {
        let row = HostSecond::of(&parse(&fixture()), 7, None, UNITS);
        assert_eq!((row.second, row.span_seconds, row.cpu_user_seconds, row.listen_drops), (7, None, None, None));
        assert_eq!(row.memory_available_bytes, Some(23_408_464 * 1024));
        assert_eq!((row.slab_bytes, row.anonymous_bytes), (Some(473_256 * 1024), Some(7 * 1024)));
        assert_eq!((row.sockets_used, row.tcp_in_use, row.tcp_time_wait), (Some(25), Some(3), Some(7)));
        assert_eq!(row.tcp_buffer_bytes, Some(159 * 4_096));
        assert_eq!((row.files_open, row.files_max), (Some(1_568), Some(i64::MAX.unsigned_abs())));
        assert_eq!((row.net_sent_bytes, row.out_of_memory_kills), (None, None));
    }

    #[test]
    fn a_row_has_what_passed_since_the_row_before() {
        let before = parse(&fixture());
        let mut texts = fixture();
        texts.insert("/proc/stat", "cpu  1050 5 440 990 30 2 320 39 0 0\n".into());
        replace(&mut texts, "/proc/net/netstat", "TcpExt: 0 4 6 0", "TcpExt: 0 5 9 0");
        replace(&mut texts, "/proc/net/snmp", "250187 323", "250200 323");
        // One interface carries on, one is new, and one has gone with all that it counted.
        replace(&mut texts, "/proc/net/dev", "lo: 100 2 0 0 0 0 0 0 300 4", "lo: 150 4 0 0 0 0 0 0 360 7");
        replace(&mut texts, "/proc/net/dev", "eth0", "eth1");
        texts.insert("/proc/vmstat", "oom_kill 4\n".into());
        let row = HostSecond::of(&parse(&texts), 8, Some((&before, Duration::from_millis(1_004))), UNITS);
        assert_eq!(row.span_seconds, Some(1.004));
        assert_eq!((row.cpu_user_seconds, row.cpu_nice_seconds), (Some(0.5), Some(0.0)));
        assert_eq!((row.cpu_system_seconds, row.cpu_softirq_seconds), (Some(0.4), Some(0.2)));
        // It fell; that is no time at all, and no overflow.
        assert_eq!((row.cpu_idle_seconds, row.cpu_steal_seconds), (Some(0.9), Some(0.0)));
        assert_eq!((row.listen_overflows, row.listen_drops), (Some(1), Some(3)));
        assert_eq!((row.tcp_active_opens, row.tcp_retransmits), (Some(13), Some(0)));
        assert_eq!((row.net_received_bytes, row.net_received_packets), (Some(57), Some(3)));
        assert_eq!((row.net_sent_bytes, row.net_sent_packets, row.out_of_memory_kills), (Some(69), Some(5), Some(1)));
    }

    #[test]
    fn what_a_kernel_does_not_tell_is_absent_and_not_nought() {
        let nothing = parse(&HashMap::new());
        let row = HostSecond::of(&nothing, 1, Some((&nothing, Duration::from_secs(1))), UNITS);
        assert_eq!(row, HostSecond { second: 1, span_seconds: Some(1.0), ..HostSecond::default() });
        let odd =
            HashMap::from([("/proc/stat", "cpu  1 2\n".into()), ("/proc/net/snmp", "Tcp: MaxConn\nTcp: -1\n".into())]);
        assert_eq!(parse(&odd), Moment::default());
    }

    #[test]
    fn this_host_tells_all_of_it() {
        let facts = HostFacts::read();
        assert!(facts.cpus.unwrap() >= 1 && facts.memory_bytes.unwrap() > 1 << 20 && facts.kernel.is_some());
        let moment = Moment::read();
        let row = HostSecond::of(&moment, 1, Some((&moment, Duration::from_secs(1))), Units::read());
        assert!(row.cpu_user_seconds.is_some() && row.memory_available_bytes.is_some());
        assert!(row.net_sent_packets.is_some() && row.files_max > row.files_open && row.out_of_memory_kills == Some(0));
        assert!(row.tcp_in_use.is_some() && row.listen_overflows.is_some() && row.tcp_retransmits.is_some());
        assert_eq!(cpu_model("processor : 0\nmodel name\t: AMD EPYC\n").as_deref(), Some("AMD EPYC"));
    }
}
