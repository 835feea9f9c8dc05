//! What other cores send: their requests, their results, and questions about this core as a whole.
//!
//! Place in the flow: the inbox, beside step 4 (route). Requests and results on keys are `execute`'s; here are the
//! questions that every core answers for itself and the core that asked puts together.

use eyot_protocol::native::reply::{put_reply, put_stats};
use eyot_protocol::request::Operation;
use eyot_protocol::ErrorCode;

use super::{Shared, Work};
use crate::admin::gather::ClientWalk;
use crate::memory::NodeMemory;
use crate::metrics::{report_json, CoreReport};
use crate::router::mesh::Message;
use crate::router::questions::{Answer, Purpose, Question};
use crate::router::{Reply, ReplySink, ReplyTo};

impl Work {
    /// Takes what another core has sent.
    pub(super) fn message(&mut self, message: Message) {
        match message {
            Message::Requests(batch) => self.forwarded(batch),
            Message::Replies(from, mut batch) => {
                self.mesh.answered(from, batch.len());
                let mut outlet = self.outlet();
                let mut start = 0;
                for (to, length, failed) in &batch.heads {
                    let end = start + *length as usize;
                    outlet.encoded(to, &batch.bytes[start..end], *failed);
                    start = end;
                }
                for (to, large) in batch.large.drain(..) {
                    outlet.large_of_other_core(&to, large);
                }
                self.mesh.recycle_replies(batch);
            }
            Message::Found(from, to, found) => {
                self.mesh.answered(from, 1);
                self.outlet().keys_found(&to, found);
            }
            Message::Asked(from, gather, question) => self.be_asked(from, gather, question),
            Message::Told(gather, answer) => self.put_answer(gather, answer),
            Message::Slow(run) => self.note_heavy(*run),
        }
    }

    /// Answers the native STATS.
    pub(super) fn ask_statistics(&mut self, to: &ReplyTo) {
        self.ask_all(to, Question::Report, Purpose::Statistics);
    }

    /// Asks every core `question`, this one included; what they tell becomes the reply to `to` as `purpose` says.
    pub(super) fn ask_all(&mut self, to: &ReplyTo, question: Question, purpose: Purpose) {
        if !self.gathers.has_room_for_reports() {
            let message = "figures are being gathered for others; retry with backoff";
            self.outlet().reply(to, Reply::Error(ErrorCode::Busy, message));
            return;
        }
        let gather = self.gathers.open_reports(*to, purpose, usize::from(self.mesh.core_count()));
        for core in (0..self.mesh.core_count()).filter(|&core| core != self.core) {
            self.mesh.post(core, Message::Asked(self.core, gather, question.clone()));
        }
        self.be_asked(self.core, gather, question);
    }

    /// Answers `question` of core `from`: at once, unless it is about many connections.
    fn be_asked(&mut self, from: u16, gather: u32, question: Question) {
        match question.into_walk() {
            Ok(walk) => self.walk_clients(from, gather, walk),
            Err(question) => {
                let answer = question.answer(self);
                self.tell(from, gather, answer);
            }
        }
    }

    fn tell(&mut self, core: u16, gather: u32, answer: Answer) {
        if core == self.core {
            self.put_answer(gather, answer);
        } else {
            self.mesh.post(core, Message::Told(gather, answer));
        }
    }

    /// Takes the first of the walks over connections a slice further.
    pub(super) fn walk_some_clients(&mut self) {
        if let Some((from, gather, walk)) = self.client_walks.pop_front() {
            self.walk_clients(from, gather, walk);
        }
    }

    fn walk_clients(&mut self, from: u16, gather: u32, mut walk: ClientWalk) {
        match walk.go_on(self) {
            Some(answer) => self.tell(from, gather, answer),
            None => self.client_walks.push_back((from, gather, walk)),
        }
    }

    fn put_answer(&mut self, gather: u32, answer: Answer) {
        if let Some((to, purpose, answers)) = self.gathers.put_report(gather, answer) {
            match purpose {
                Purpose::Statistics => self.answer_statistics(&to, answers),
                Purpose::Resp(pending) => self.answer_admin(&to, pending, answers),
            }
        }
    }

    fn answer_statistics(&mut self, to: &ReplyTo, answers: Vec<Answer>) {
        let report_of = |answer| match answer {
            Answer::Report(report) => *report,
            other => unreachable!("{other:?} was not asked for"),
        };
        let mut reports: Vec<CoreReport> = answers.into_iter().map(report_of).collect();
        reports.sort_by_key(|report| report.core);
        let Shared { settings, tunables, memory, report, .. } = &*self.shared;
        let memory = NodeMemory::now(&settings.memory, tunables, memory);
        let json = report_json(report, &memory, self.clock.uptime(), &reports);
        self.outlet().answer(to, 1, |out| {
            put_reply(out, Operation::Stats.code(), to.number, |out| put_stats(out, &json));
        });
    }

    /// This core's figures.
    pub(super) fn core_report(&self) -> CoreReport {
        let sum = |figure: fn(&crate::shard::Shard) -> usize| -> u64 {
            self.shards.iter().map(|driver| figure(driver.shard()) as u64).sum()
        };
        CoreReport {
            core: self.core,
            processor: self.shared.settings.processors[usize::from(self.core)],
            keys: sum(crate::shard::Shard::key_count),
            expiring_keys: sum(crate::shard::Shard::expiring_key_count),
            memory_bytes: sum(crate::shard::Shard::memory_bytes),
            memory: self.core_memory(),
            entries: self.shards.iter().map(|driver| driver.last_index().0).sum(),
            shards: self.shards.len() as u16,
            connections: self.connections.len() as u64,
            log_pending_bytes: self.log.pending_bytes() as u64,
            log_kept_bytes: self.log.kept_bytes(),
            read_only: self.log.blocked().is_some(),
            metrics: self.metrics.snapshot(),
        }
    }
}
