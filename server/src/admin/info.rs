//! INFO: the figures of the node under the names that dashboards read.
//!
//! Place in the flow: step 9 of INFO, on the core that was asked, once every core has reported. Pure: text of figures.
//!
//! Sections come in Redis's order, whatever the order in which they were asked for, each once. Names and formats of the
//! fields are those of Redis 7.0 (<https://redis.io/commands/info/>), so that exporters need no change; the section
//! `Eyot` and the fields that begin with `eyot_` are ours.
//!
//! Invariant: a field that stands here is true. What Eyot does not have is 0 where zero is the truth (replicas, forks),
//! and else left out.

mod sections;
#[cfg(test)]
mod tests;

use super::figures::NodeFigures;

/// A section of INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Server,
    Clients,
    Memory,
    Persistence,
    Stats,
    Replication,
    Cpu,
    Modules,
    Commandstats,
    Errorstats,
    Latencystats,
    Cluster,
    Keyspace,
    Eyot,
}

impl Section {
    /// All of them, in the order in which they are told.
    const ALL: [Self; 14] = [
        Self::Server,
        Self::Clients,
        Self::Memory,
        Self::Persistence,
        Self::Stats,
        Self::Replication,
        Self::Cpu,
        Self::Modules,
        Self::Commandstats,
        Self::Errorstats,
        Self::Latencystats,
        Self::Cluster,
        Self::Keyspace,
        Self::Eyot,
    ];

    /// The title, which is also the name in any case.
    fn title(self) -> &'static str {
        match self {
            Self::Server => "Server",
            Self::Clients => "Clients",
            Self::Memory => "Memory",
            Self::Persistence => "Persistence",
            Self::Stats => "Stats",
            Self::Replication => "Replication",
            Self::Cpu => "CPU",
            Self::Modules => "Modules",
            Self::Commandstats => "Commandstats",
            Self::Errorstats => "Errorstats",
            Self::Latencystats => "Latencystats",
            Self::Cluster => "Cluster",
            Self::Keyspace => "Keyspace",
            Self::Eyot => "Eyot",
        }
    }

    /// Whether it is told when no section is named.
    fn is_default(self) -> bool {
        !matches!(self, Self::Commandstats | Self::Latencystats | Self::Eyot)
    }

    /// Whether `name` asks for it.
    fn is_asked_by(self, name: &[u8]) -> bool {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        is(self.title()) || is("all") || is("everything") || (is("default") && self.is_default())
    }
}

/// The text of the sections that `names` ask for; of the default ones if there are no names. A name that is no section
/// asks for nothing.
pub fn info(names: &[&[u8]], figures: &NodeFigures) -> String {
    let mut text = String::new();
    for section in Section::ALL {
        let unnamed = names.is_empty() && section.is_default();
        if !unnamed && !names.iter().any(|name| section.is_asked_by(name)) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        sections::write(section, figures, &mut text);
    }
    text
}
