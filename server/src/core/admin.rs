//! Requests over RESP that are about the connection or the server.
//!
//! Place in the flow: step 5 (execute), on the core that holds the connection. What needs every core's figures is asked
//! for in `messages` and answered here when the last core has told its part; the words of the replies are in
//! `server/src/admin`.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use eyot_protocol::command::{Command, PairList};
use eyot_protocol::request::Operation;
use eyot_protocol::resp::command_reply::{put_command, put_help};
use eyot_protocol::resp::request::{ClientCommand, ClusterCommand, HelloRequest, LibraryInfo, ReplyMode as Wanted};
use eyot_protocol::resp::{Args, CommandId, RespRequest, RespVersion};

use super::authentication::HELLO_NOT_AUTHENTICATED;
use super::execute::{KeyRequest, Terms};
use super::Shared;
use super::Work;
use crate::admin::client_list::{ClientFlag, ClientInfo};
use crate::admin::config_names::ConfigContext;
use crate::admin::figures::Moment;
use crate::admin::gather::{question, CoreSide, Pending};
use crate::admin::latency::LatencyEvents;
use crate::admin::slowlog::SlowLog;
use crate::admin::{command_name, greeting, AdminContext};
use crate::metrics::{CoreReport, Metrics};
use crate::net::connection::Stage;
use crate::net::session::{ReplyMode, Session};
use crate::replication::WriteAck;
use crate::router::keyspace::KeyspaceRequest;
use crate::router::questions::{Answer, Purpose};
use crate::router::{Form, ReplyTo};

impl Work {
    /// Executes what is not about keys.
    pub(super) fn admin_request(&mut self, key: u32, id: CommandId, request: &RespRequest<'_>) {
        match request {
            RespRequest::SetAllIfAbsent { pairs } => return self.set_all_if_absent(key, *pairs),
            RespRequest::Cluster(ClusterCommand::CountKeysInSlot(slot)) => {
                return self.ask_slot(key, *slot, KeyspaceRequest::CountInSlot(*slot));
            }
            RespRequest::Cluster(ClusterCommand::GetKeysInSlot { slot, count }) => {
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                return self.ask_slot(key, *slot, KeyspaceRequest::KeysInSlot(*slot, count));
            }
            RespRequest::Client(ClientCommand::Reply(mode)) => return self.client_reply(key, *mode),
            RespRequest::Save => return self.save(key),
            _ => {}
        }
        let to = self.begin_resp(key, Operation::Admin, false, 1);
        match request {
            RespRequest::Ping(None) => self.say(&to, |writer| writer.status("PONG")),
            RespRequest::Ping(Some(text)) | RespRequest::Echo(text) => self.say(&to, |writer| writer.bulk(text)),
            RespRequest::Select => self.say(&to, |writer| writer.status("OK")),
            RespRequest::ReadOnly | RespRequest::ReadWrite => {
                let read_only = *request == RespRequest::ReadOnly;
                self.connections.get_mut(key).session.resp().profile_mut().read_only = read_only;
                self.say(&to, |writer| writer.status("OK"));
            }
            RespRequest::Hello(hello) => self.hello_resp(&to, hello),
            RespRequest::Auth(credentials) => match self.authenticate_resp(key, credentials) {
                Err(error) => self.refuse(&to, &error),
                Ok(()) => self.say(&to, |writer| writer.status("OK")),
            },
            RespRequest::Quit => {
                self.say(&to, |writer| writer.status("OK"));
                self.connections.finish_and_linger(key);
            }
            RespRequest::Reset => {
                self.connections.get_mut(key).session.resp().reset();
                self.lock(key);
                self.say(&to, |writer| writer.status("RESET"));
            }
            RespRequest::Client(client) => self.client(&to, client),
            RespRequest::Command(command) => self.say(&to, |writer| put_command(writer, command)),
            RespRequest::BackgroundSave { schedule } => self.background_save(&to, *schedule),
            RespRequest::LastSave => self.last_save(&to),
            RespRequest::Help => self.say(&to, |writer| put_help(writer, id)),
            RespRequest::Shutdown(_) => {
                // The connection ends without a reply, as Redis has it.
                self.say(&to, |_| {});
                tracing::info!("SHUTDOWN was asked for: finishing what is in flight");
                self.shared.stop();
            }
            other => self.ask_or_answer(&to, other),
        }
    }

    /// Asks every core, or answers what this one knows alone.
    fn ask_or_answer(&mut self, to: &ReplyTo, request: &RespRequest<'_>) {
        let shared = Arc::clone(&self.shared);
        let asking = self.connections.get_mut(to.key).id;
        if let Some((question, pending)) = question(request, asking, shared.server_tunables.slowlog_len()) {
            self.ask_all(to, question, Purpose::Resp(pending));
            return;
        }
        let context = self.admin_context(&shared, to);
        self.say(to, |writer| {
            assert!(crate::admin::answer(request, &context, writer), "{request:?} is executed elsewhere");
        });
        // It may have been CONFIG SET, and holds for what the same client sends next.
        self.look_at_settings();
    }

    fn set_all_if_absent(&mut self, key: u32, pairs: Args<'_>) {
        let connection = self.connections.get_mut(key);
        let after_own_writes = connection.writes_in_flight > 0;
        let terms = Terms { ack: WriteAck::Applied, after_own_writes, deadline_us: u64::MAX };
        let to = self.begin_resp(key, Operation::Modify, true, 1);
        let pairs: Vec<(&[u8], &[u8])> = pairs.pairs().collect();
        let command = Command::SetAllIfAbsent { pairs: PairList::new(&pairs) };
        let home = self.home(command.key().expect("the parser wants one pair at least"));
        self.dispatch(&to, &KeyRequest::Write(command), terms, home);
    }

    fn hello_resp(&mut self, to: &ReplyTo, hello: &HelloRequest<'_>) {
        if let Some(Err(error)) = hello.auth.as_ref().map(|said| self.authenticate_resp(to.key, said)) {
            return self.refuse(to, &error);
        }
        let connection = self.connections.get_mut(to.key);
        if connection.is_locked() {
            return self.refuse(to, &HELLO_NOT_AUTHENTICATED);
        }
        let id = connection.id;
        let session = connection.session.resp();
        session.version = hello.version.unwrap_or(session.version);
        if let Some(name) = hello.name {
            session.profile_mut().name = Box::from(name);
        }
        let version = session.version;
        let cluster = self.shared.facts.cluster_enabled;
        // The reply is in the version that was just agreed on.
        let form = if to.form == Form::Silent { Form::Silent } else { Form::Resp(version) };
        self.say(&ReplyTo { form, ..*to }, |writer| greeting::hello(id, cluster, writer));
    }

    /// CLIENT REPLY answers, if at all, in the mode that it sets.
    fn client_reply(&mut self, key: u32, mode: Wanted) {
        let session = self.connections.get_mut(key).session.resp();
        match mode {
            Wanted::On => session.replies = ReplyMode::On,
            Wanted::Off => session.replies = ReplyMode::Off,
            Wanted::Skip if session.replies == ReplyMode::Off => {}
            Wanted::Skip => session.replies = ReplyMode::SkipNext,
        }
        if mode == Wanted::On {
            let to = self.begin_resp(key, Operation::Admin, false, 1);
            self.say(&to, |writer| writer.status("OK"));
        }
    }

    fn client(&mut self, to: &ReplyTo, client: &ClientCommand<'_>) {
        let connection = self.connections.get_mut(to.key);
        let id = connection.id;
        let session = connection.session.resp();
        match client {
            ClientCommand::Id => self.say(to, |writer| writer.integer(id as i64)),
            ClientCommand::GetName => {
                let name = session.profile.as_ref().map(|profile| profile.name.clone()).unwrap_or_default();
                self.say(to, |writer| if name.is_empty() { writer.null() } else { writer.bulk(&name) });
            }
            ClientCommand::SetName(name) => {
                session.profile_mut().name = Box::from(*name);
                self.say(to, |writer| writer.status("OK"));
            }
            ClientCommand::SetInfo { what, value } => {
                let profile = session.profile_mut();
                match what {
                    LibraryInfo::Name => profile.library = Box::from(*value),
                    LibraryInfo::Version => profile.library_version = Box::from(*value),
                }
                self.say(to, |writer| writer.status("OK"));
            }
            ClientCommand::NoEvict(on) => {
                session.profile_mut().no_evict = *on;
                self.say(to, |writer| writer.status("OK"));
            }
            ClientCommand::Info => {
                let line = self.client_info(to.key).map_or(String::new(), |info| info.line());
                self.say(to, |writer| writer.verbatim(&line));
            }
            other => self.ask_or_answer(to, &RespRequest::Client(*other)),
        }
    }

    /// Answers what every core has told its part of.
    pub(super) fn answer_admin(&mut self, to: &ReplyTo, pending: Pending, answers: Vec<Answer>) {
        let shared = Arc::clone(&self.shared);
        let context = self.admin_context(&shared, to);
        self.say(to, |writer| pending.reply(answers, &context, writer));
    }

    /// What replies are made of.
    fn admin_context<'a>(&mut self, shared: &'a Shared, to: &ReplyTo) -> AdminContext<'a> {
        let resp = shared.resp_addresses.as_ref().expect("a RESP connection came to a RESP listener");
        let connection = self.connections.get_of(to.key, to.generation);
        let arrived_on = connection.and_then(|connection| connection.socket.local_addr().ok());
        AdminContext {
            facts: &shared.facts,
            memory_peak: &shared.memory_peak,
            config: ConfigContext {
                settings: &shared.settings,
                tunables: &shared.server_tunables,
                memory: &shared.tunables,
                resp_address: resp.shared,
                clients_possible: shared.clients_possible,
                cluster_enabled: shared.facts.cluster_enabled,
            },
            snapshots: &shared.snapshots,
            routes: &shared.routes,
            core_addresses: &resp.cores,
            core: self.core,
            arrived_on: arrived_on.unwrap_or(resp.shared).ip(),
            moment: Moment { wall_us: self.clock.wall_us(), monotonic_us: self.clock.monotonic_us() },
        }
    }

    /// Connection `key` as CLIENT LIST shows it; `None`: its client is gone.
    fn client_info(&mut self, key: u32) -> Option<ClientInfo> {
        let (core, now_us) = (self.core, self.clock.monotonic_us());
        let connection = self.connections.get_mut(key);
        let (addr, laddr) = (connection.socket.peer_addr().ok()?, connection.socket.local_addr().ok()?);
        let seconds = |since_us: u64| now_us.saturating_sub(since_us) / 1_000_000;
        let mut info = ClientInfo {
            key,
            id: connection.id,
            addr,
            laddr,
            fd: connection.socket.as_raw_fd(),
            name: String::new(),
            age_s: seconds(connection.opened_us),
            idle_s: seconds(connection.heard_us),
            flags: Vec::new(),
            query_bytes: connection.input.len() as u64,
            query_free_bytes: (connection.input.capacity() - connection.input.len()) as u64,
            output_bytes: connection.unread_bytes() as u64,
            output_items: u64::from(connection.sending_bytes > 0),
            memory_bytes: connection.buffer_bytes() as u64,
            command: "native",
            version: RespVersion::Two,
            library: String::new(),
            library_version: String::new(),
            core,
        };
        if connection.stage != Stage::Open {
            info.flags.push(ClientFlag::ClosesAfterReply);
        }
        if let Session::Resp(session) = &connection.session {
            info.version = session.version;
            info.command = session.last_command.map_or("NULL", |id| command_name(id as usize));
            if let Some(profile) = &session.profile {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                info.name = text(&profile.name);
                info.library = text(&profile.library);
                info.library_version = text(&profile.library_version);
                info.flags.extend(profile.no_evict.then_some(ClientFlag::NoEvict));
                info.flags.extend(profile.read_only.then_some(ClientFlag::ReadOnly));
            }
        }
        Some(info)
    }
}

impl CoreSide for Work {
    fn slow_log(&mut self) -> &mut SlowLog {
        &mut self.slow_log
    }

    fn events(&mut self) -> &mut LatencyEvents {
        &mut self.latency_events
    }

    fn metrics(&mut self) -> &mut Metrics {
        &mut self.metrics
    }

    fn report(&mut self) -> CoreReport {
        self.core_report()
    }

    fn visit_clients(&mut self, from: usize, count: usize, each: &mut dyn FnMut(ClientInfo)) -> usize {
        let mut keys = Vec::with_capacity(count);
        let next = self.connections.visit(from, count, |key, _| keys.push(key));
        keys.into_iter().filter_map(|key| self.client_info(key)).for_each(each);
        next
    }

    fn close(&mut self, client: &ClientInfo, is_asking: bool) {
        if is_asking {
            self.connections.finish_and_linger(client.key);
        } else {
            self.connections.end(client.key);
        }
    }
}
