//! Requests over RESP that are about the connection or the server.
//!
//! Place in the flow: step 5 (execute), on the core that holds the connection. What needs every core's figures is asked
//! for in `messages` and answered here when the last core has told its part; the words of the replies are in
//! `server/src/admin`.

use eyot_protocol::command::{Command, PairList};
use eyot_protocol::key::slot;
use eyot_protocol::request::Operation;
use eyot_protocol::resp::command_reply::{put_command, put_help};
use eyot_protocol::resp::request::{ClientCommand, ClusterCommand, HelloRequest, LibraryInfo, ReplyMode as Wanted};
use eyot_protocol::resp::{Args, CommandId, RespError, RespRequest, RespVersion, Writer};

use super::execute::{KeyRequest, Terms};
use super::Work;
use crate::net::session::ReplyMode;
use crate::replication::WriteAck;
use crate::router::keyspace::KeyspaceRequest;
use crate::router::questions::{Part, RespPurpose};
use crate::router::{Form, ReplyTo};

/// What AUTH is answered: there are no passwords.
const NO_PASSWORD: RespError = RespError::fixed(
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration \
     is correct?",
);

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
            _ => {}
        }
        let to = self.begin_resp(key, Operation::Admin, false, 1);
        match request {
            RespRequest::Ping(None) => self.say(&to, |writer| writer.status("PONG")),
            RespRequest::Ping(Some(text)) | RespRequest::Echo(text) => self.say(&to, |writer| writer.bulk(text)),
            RespRequest::Select | RespRequest::ReadOnly | RespRequest::ReadWrite => {
                self.say(&to, |writer| writer.status("OK"));
            }
            RespRequest::Hello(hello) => self.hello_resp(&to, hello),
            RespRequest::Auth(_) => self.refuse(&to, &NO_PASSWORD),
            RespRequest::Quit => {
                self.say(&to, |writer| writer.status("OK"));
                self.connections.finish_and_linger(key);
            }
            RespRequest::Reset => {
                self.connections.get_mut(key).session.resp().reset();
                self.say(&to, |writer| writer.status("RESET"));
            }
            RespRequest::Client(client) => self.client(&to, client),
            RespRequest::Command(command) => self.say(&to, |writer| put_command(writer, command)),
            RespRequest::Help => self.say(&to, |writer| put_help(writer, id)),
            RespRequest::Shutdown(_) => {
                // The connection ends without a reply, as Redis has it.
                self.say(&to, |_| {});
                tracing::info!("SHUTDOWN was asked for: finishing what is in flight");
                self.shared.stop();
            }
            RespRequest::Cluster(ClusterCommand::KeySlot(name)) => {
                self.say(&to, |writer| writer.integer(i64::from(slot(name))));
            }
            _ => self.refuse(&to, &RespError::fixed("ERR not available yet")),
        }
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
        if hello.auth.is_some() {
            return self.refuse(to, &NO_PASSWORD);
        }
        let connection = self.connections.get_mut(to.key);
        let id = connection.id;
        let session = connection.session.resp();
        session.version = hello.version.unwrap_or(session.version);
        if let Some(name) = hello.name {
            session.profile_mut().name = Box::from(name);
        }
        let version = session.version;
        // The reply is in the version that was just agreed on.
        let form = if to.form == Form::Silent { Form::Silent } else { Form::Resp(version) };
        self.say(&ReplyTo { form, ..*to }, |writer| put_hello(writer, id));
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
            _ => self.refuse(to, &RespError::fixed("ERR not available yet")),
        }
    }

    /// Answers what every core has told its part of.
    pub(super) fn answer_admin(&mut self, to: &ReplyTo, purpose: RespPurpose, parts: Vec<Part>) {
        let _ = (to, purpose, parts);
    }
}

/// The reply of HELLO.
fn put_hello(writer: &mut Writer<'_>, id: u64) {
    writer.map(7);
    writer.bulk_text("server");
    writer.bulk_text("redis");
    writer.bulk_text("version");
    writer.bulk_text("7.0.15");
    writer.bulk_text("proto");
    writer.integer(if writer.version == RespVersion::Three { 3 } else { 2 });
    writer.bulk_text("id");
    writer.integer(id as i64);
    writer.bulk_text("mode");
    writer.bulk_text("standalone");
    writer.bulk_text("role");
    writer.bulk_text("master");
    writer.bulk_text("modules");
    writer.array(0);
}
