//! Requests of administration that every core has a part in: what each core is asked, and the reply of all answers.
//!
//! Place in the flow: [`Question`]s travel to the cores as STATS does (step 4), each core answers of its own
//! ([`Question::answer`]), and the core that was asked writes the reply when the last [`Answer`] has come
//! ([`Pending::reply`]).
//!
//! ```text
//! request --begin--> Question, Pending        one Question to each core, this one among them
//!                    Question --answer--> Answer        on each core
//!                    Pending --reply--> RESP            with all Answers
//! ```
//!
//! Invariant: question, answer and pending request own what they hold: the request's bytes are long gone when the last
//! answer comes.
//!
//! Deliberately not here: sending, waiting, and giving up; a core that never answers is a bug.

use eyot_protocol::resp::request::{
    ClientCommand, ClientFilter, ClientType, ConfigCommand, KillFilter, LatencyCommand, MemoryCommand, RespRequest,
    SlowLogCommand,
};
use eyot_protocol::resp::table::lookup;
use eyot_protocol::resp::Writer;

use super::client_list::{self, ClientInfo};
use super::figures::NodeFigures;
use super::latency::{write_histograms, Event, LatencyEvents};
use super::slowlog::{self, SlowEntry, SlowLog};
use super::{info, memory_reply, AdminContext};
use crate::metrics::{CoreReport, Metrics};

/// What every core is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Its figures.
    Report,
    /// The newest entries of its slow log, at most so many.
    SlowEntries(usize),
    /// How many entries its slow log has.
    SlowLength,
    /// To forget its slow log.
    SlowReset,
    /// Its events.
    Events,
    /// To forget these events, or all; what they were.
    TakeEvents(Option<Vec<Event>>),
    /// Its connections that are listed.
    Clients(ListedClients),
    /// To close these connections; how many there were.
    Kill(KilledClients),
    /// To set its statistics to zero.
    ResetStatistics,
}

/// Which connections CLIENT LIST describes, owned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListedClients {
    /// Those of this class.
    pub client_type: Option<ClientType>,
    /// Those with these numbers, in order; `None`: all.
    pub ids: Option<Vec<u64>>,
}

impl From<ClientFilter<'_>> for ListedClients {
    fn from(filter: ClientFilter<'_>) -> Self {
        let sorted = |ids: &mut dyn Iterator<Item = u64>| {
            let mut ids: Vec<u64> = ids.collect();
            ids.sort_unstable();
            ids
        };
        Self { client_type: filter.client_type, ids: filter.ids().map(|mut ids| sorted(&mut ids)) }
    }
}

/// Which connections CLIENT KILL closes, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KilledClients {
    /// The connection that asks.
    pub asking: u64,
    /// See [`KillFilter::id`].
    pub id: Option<u64>,
    /// See [`KillFilter::client_type`].
    pub client_type: Option<ClientType>,
    /// See [`KillFilter::address`].
    pub address: Option<Vec<u8>>,
    /// See [`KillFilter::local_address`].
    pub local_address: Option<Vec<u8>>,
    /// See [`KillFilter::user`].
    pub user: Option<Vec<u8>>,
    /// See [`KillFilter::skip_me`].
    pub skip_me: bool,
}

impl KilledClients {
    fn new(filter: &KillFilter<'_>, asking: u64) -> Self {
        Self {
            asking,
            id: filter.id,
            client_type: filter.client_type,
            address: filter.address.map(<[u8]>::to_vec),
            local_address: filter.local_address.map(<[u8]>::to_vec),
            user: filter.user.map(<[u8]>::to_vec),
            skip_me: filter.skip_me,
        }
    }

    /// Whether `client` is one of them.
    pub fn has(&self, client: &ClientInfo) -> bool {
        let filter = KillFilter {
            id: self.id,
            client_type: self.client_type,
            address: self.address.as_deref(),
            local_address: self.local_address.as_deref(),
            user: self.user.as_deref(),
            skip_me: self.skip_me,
        };
        client.is_killed(&filter, self.asking)
    }
}

/// What a core answers.
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::Report`].
    Report(Box<CoreReport>),
    /// To [`Question::SlowEntries`].
    SlowEntries(Vec<SlowEntry>),
    /// To [`Question::Events`] and [`Question::TakeEvents`].
    Events(Box<LatencyEvents>),
    /// To [`Question::Clients`]: their numbers and lines.
    Clients(Vec<(u64, String)>),
    /// To [`Question::SlowLength`] and [`Question::Kill`].
    Count(u64),
    /// To the others: it is done.
    Done,
}

/// What a core answers from.
pub trait CoreSide {
    /// Its slow log.
    fn slow_log(&mut self) -> &mut SlowLog;
    /// Its events.
    fn events(&mut self) -> &mut LatencyEvents;
    /// Its counters.
    fn metrics(&mut self) -> &mut Metrics;
    /// Its figures.
    fn report(&mut self) -> CoreReport;
    /// Shows `each` at most `count` of its connections, from place `from` on; returns where to go on, 0 after the last.
    fn visit_clients(&mut self, from: usize, count: usize, each: &mut dyn FnMut(ClientInfo)) -> usize;
    /// Closes one of the connections that [`CoreSide::visit_clients`] has just shown; replies that wait for the
    /// connection that asks, `is_asking`, are sent first.
    fn close(&mut self, client: &ClientInfo, is_asking: bool);
}

/// Connections that a core looks at in a turn for CLIENT LIST or CLIENT KILL: some tenths of a millisecond, since the
/// system is asked for the addresses of each, and may have to close it.
pub const CLIENTS_PER_SLICE: usize = 128;

#[derive(Debug)]
enum ClientTask {
    List(ListedClients),
    Kill(KilledClients),
}

/// A question about connections, of which there may be many: it is answered a slice at a time.
#[derive(Debug)]
pub struct ClientWalk {
    task: ClientTask,
    /// Where it goes on.
    place: usize,
    lines: Vec<(u64, String)>,
    killed_count: u64,
}

impl ClientWalk {
    fn new(task: ClientTask) -> Self {
        Self { task, place: 0, lines: Vec::new(), killed_count: 0 }
    }

    /// Looks at the next connections of `core`; the answer if they were the last.
    pub fn go_on(&mut self, core: &mut impl CoreSide) -> Option<Answer> {
        let Self { task, lines, .. } = self;
        let mut victims = Vec::new();
        self.place = core.visit_clients(self.place, CLIENTS_PER_SLICE, &mut |client| match task {
            ClientTask::List(listed) => {
                if client.is_listed(listed.client_type, listed.ids.as_deref()) {
                    lines.push((client.id, client.line()));
                }
            }
            ClientTask::Kill(killed) => {
                if killed.has(&client) {
                    victims.push((client.id == killed.asking, client));
                }
            }
        });
        self.killed_count += victims.len() as u64;
        for (is_asking, client) in &victims {
            core.close(client, *is_asking);
        }
        (self.place == 0).then(|| match self.task {
            ClientTask::List(_) => Answer::Clients(std::mem::take(&mut self.lines)),
            ClientTask::Kill(_) => Answer::Count(self.killed_count),
        })
    }

    fn finish(mut self, core: &mut impl CoreSide) -> Answer {
        loop {
            if let Some(answer) = self.go_on(core) {
                return answer;
            }
        }
    }
}

impl Question {
    /// The walk that answers a question about connections; any other question as it was.
    ///
    /// # Errors
    /// The question, which [`Question::answer`] answers at once.
    pub fn into_walk(self) -> Result<ClientWalk, Self> {
        match self {
            Self::Clients(listed) => Ok(ClientWalk::new(ClientTask::List(listed))),
            Self::Kill(killed) => Ok(ClientWalk::new(ClientTask::Kill(killed))),
            other => Err(other),
        }
    }

    /// What this core says.
    pub fn answer(self, core: &mut impl CoreSide) -> Answer {
        match self {
            Self::Report => Answer::Report(Box::new(core.report())),
            Self::SlowEntries(count) => Answer::SlowEntries(core.slow_log().newest(count)),
            Self::SlowLength => Answer::Count(core.slow_log().len() as u64),
            Self::SlowReset => {
                core.slow_log().reset();
                Answer::Done
            }
            Self::Events => Answer::Events(Box::new(core.events().clone())),
            Self::TakeEvents(events) => Answer::Events(Box::new(core.events().take(events.as_deref()))),
            Self::Clients(listed) => ClientWalk::new(ClientTask::List(listed)).finish(core),
            Self::Kill(killed) => ClientWalk::new(ClientTask::Kill(killed)).finish(core),
            Self::ResetStatistics => {
                core.metrics().reset_statistics();
                Answer::Done
            }
        }
    }
}

/// A request that waits for the answers of all cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// INFO of these sections.
    Info(Vec<Vec<u8>>),
    /// MEMORY STATS.
    MemoryStats,
    /// MEMORY DOCTOR.
    MemoryDoctor,
    /// SLOWLOG GET of at most so many.
    SlowGet(usize),
    /// SLOWLOG LEN.
    SlowLength,
    /// LATENCY LATEST.
    Latest,
    /// LATENCY HISTORY of an event.
    History(Vec<u8>),
    /// LATENCY GRAPH of an event.
    Graph(Vec<u8>),
    /// LATENCY DOCTOR.
    LatencyDoctor,
    /// LATENCY RESET.
    LatencyReset,
    /// LATENCY HISTOGRAM of these commands, or of all.
    Histogram(Option<Vec<usize>>),
    /// CLIENT LIST.
    ClientList,
    /// CLIENT KILL with filters.
    ClientKill,
    /// CLIENT KILL of an address.
    ClientKillAddress,
    /// What is answered with OK.
    Done,
}

/// What `request` asks of every core; `None`: it is no request of this kind. `asking` is the connection's number.
pub fn question(request: &RespRequest<'_>, asking: u64, slow_log_len: u64) -> Option<(Question, Pending)> {
    Some(match request {
        RespRequest::Info { sections } => {
            (Question::Report, Pending::Info(sections.iter().map(<[u8]>::to_vec).collect()))
        }
        RespRequest::Memory(MemoryCommand::Stats) => (Question::Report, Pending::MemoryStats),
        RespRequest::Memory(MemoryCommand::Doctor) => (Question::Report, Pending::MemoryDoctor),
        RespRequest::Config(ConfigCommand::ResetStat) => (Question::ResetStatistics, Pending::Done),
        RespRequest::SlowLog(SlowLogCommand::Get(count)) => {
            let wanted = slowlog::wanted(*count, slow_log_len);
            (Question::SlowEntries(wanted), Pending::SlowGet(wanted))
        }
        RespRequest::SlowLog(SlowLogCommand::Len) => (Question::SlowLength, Pending::SlowLength),
        RespRequest::SlowLog(SlowLogCommand::Reset) => (Question::SlowReset, Pending::Done),
        RespRequest::Latency(command) => of_latency(command),
        RespRequest::Client(ClientCommand::List(filter)) => {
            (Question::Clients(ListedClients::from(*filter)), Pending::ClientList)
        }
        RespRequest::Client(ClientCommand::Kill(filter)) => {
            (Question::Kill(KilledClients::new(filter, asking)), Pending::ClientKill)
        }
        RespRequest::Client(ClientCommand::KillAddress(address)) => {
            let filter = KillFilter {
                id: None,
                client_type: None,
                address: Some(address),
                local_address: None,
                user: None,
                skip_me: false,
            };
            (Question::Kill(KilledClients::new(&filter, asking)), Pending::ClientKillAddress)
        }
        _ => return None,
    })
}

fn of_latency(command: &LatencyCommand<'_>) -> (Question, Pending) {
    match command {
        LatencyCommand::Latest => (Question::Events, Pending::Latest),
        LatencyCommand::History(event) => (Question::Events, Pending::History(event.to_vec())),
        LatencyCommand::Graph(event) => (Question::Events, Pending::Graph(event.to_vec())),
        LatencyCommand::Doctor => (Question::Events, Pending::LatencyDoctor),
        LatencyCommand::Reset(names) => {
            let named = (!names.is_empty()).then(|| names.iter().filter_map(Event::of_name).collect());
            (Question::TakeEvents(named), Pending::LatencyReset)
        }
        LatencyCommand::Histogram(names) => {
            let places = || names.iter().filter_map(lookup).map(|command| command as usize).collect();
            (Question::Report, Pending::Histogram((!names.is_empty()).then(places)))
        }
    }
}

impl Pending {
    /// Writes the reply of all cores' `answers`.
    pub fn reply(self, answers: Vec<Answer>, context: &AdminContext<'_>, reply: &mut Writer<'_>) {
        match self {
            Self::Info(sections) => {
                let figures = figures(answers, context);
                let sections: Vec<&[u8]> = sections.iter().map(Vec::as_slice).collect();
                reply.verbatim(&info::info(&sections, &figures));
            }
            Self::MemoryStats => memory_reply::stats(&figures(answers, context), reply),
            Self::MemoryDoctor => reply.verbatim(&memory_reply::doctor(&figures(answers, context))),
            Self::Histogram(named) => write_histograms(&figures(answers, context).commands, named.as_deref(), reply),
            Self::SlowGet(count) => slowlog::write_entries(&slowlog::merged(slow_entries(answers), count), reply),
            Self::SlowLength => reply.integer(count(&answers).min(context.config.tunables.slowlog_len()) as i64),
            Self::Latest => events(&answers).write_latest(reply),
            Self::History(name) => events(&answers).write_history(&name, reply),
            Self::Graph(name) => match events(&answers).graph(&name) {
                Some(graph) => reply.verbatim(&graph),
                None => {
                    let name = String::from_utf8_lossy(&name);
                    reply.error(&format!("ERR No samples available for event '{name}'"));
                }
            },
            Self::LatencyDoctor => {
                reply.verbatim(&events(&answers).doctor(context.config.tunables.latency_threshold_ms()));
            }
            Self::LatencyReset => reply.integer(events(&answers).event_count() as i64),
            Self::ClientList => reply.verbatim(&client_list::list(clients(answers))),
            Self::ClientKill => reply.integer(count(&answers) as i64),
            Self::ClientKillAddress if count(&answers) == 0 => reply.error("ERR No such client"),
            Self::ClientKillAddress | Self::Done => reply.ok(),
        }
    }
}

fn figures(answers: Vec<Answer>, context: &AdminContext<'_>) -> NodeFigures {
    let of_core = |answer| match answer {
        Answer::Report(report) => Some(*report),
        _ => None,
    };
    let reports: Vec<CoreReport> = answers.into_iter().filter_map(of_core).collect();
    context.figures(&reports)
}

fn slow_entries(answers: Vec<Answer>) -> impl Iterator<Item = Vec<SlowEntry>> {
    answers.into_iter().filter_map(|answer| match answer {
        Answer::SlowEntries(entries) => Some(entries),
        _ => None,
    })
}

fn clients(answers: Vec<Answer>) -> Vec<(u64, String)> {
    let of_core = |answer| match answer {
        Answer::Clients(clients) => clients,
        _ => Vec::new(),
    };
    answers.into_iter().flat_map(of_core).collect()
}

fn events(answers: &[Answer]) -> LatencyEvents {
    LatencyEvents::merged(answers.iter().filter_map(|answer| match answer {
        Answer::Events(events) => Some(&**events),
        _ => None,
    }))
}

fn count(answers: &[Answer]) -> u64 {
    let of_core = |answer: &Answer| if let Answer::Count(count) = answer { *count } else { 0 };
    answers.iter().map(of_core).sum()
}
