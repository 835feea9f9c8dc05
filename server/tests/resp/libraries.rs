//! redis-py and redis-rs: replies as their types, pipelines, and clusters, where each core is a node.

use std::process::Command;

use redis::cluster::ClusterClient;
use redis::{Client, Commands, Connection, ExistenceCheck, RedisResult, SetExpiry, SetOptions};

use crate::support::servers::REMEDY;
use crate::support::{directory, several_cores, Subject};

/// An interpreter that has redis-py: the one that the tester names, or one of this machine's.
///
/// # Panics
/// When there is none, with the remedy.
fn python() -> String {
    let named = std::env::var("EYOT_PYTHON").ok();
    let candidates = named.map_or_else(|| vec!["python3".to_owned(), "/usr/bin/python3".to_owned()], |name| vec![name]);
    let has_redis = |python: &String| {
        Command::new(python).args(["-c", "import redis.cluster"]).output().is_ok_and(|output| output.status.success())
    };
    let found = candidates.iter().find(|python| has_redis(python));
    found.unwrap_or_else(|| panic!("no redis-py among {candidates:?}: {REMEDY}")).clone()
}

#[track_caller]
fn run_python(script: &str, arguments: &[String]) {
    let path = format!("{}/tests/resp/{script}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python()).arg(path).args(arguments).output().expect("the interpreter starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains(": ok"), "{script}: {said}");
    eprint!("{said}");
}

fn place(subject: &Subject) -> Vec<String> {
    vec![subject.address().ip().to_string(), subject.address().port().to_string()]
}

#[test]
fn redis_py_works() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--sync-writes=false"]);
    run_python("redis_py.py", &place(&subject));
}

#[test]
fn redis_py_finds_each_core_as_a_node_of_a_cluster() {
    let directory = directory();
    let subject =
        Subject::start_cluster(directory.path(), &["--sync-writes=false", "--cores", &several_cores().to_string()]);
    let nodes = subject.core_addresses().len();
    let mut arguments = place(&subject);
    arguments.push(nodes.to_string());
    let forwarded = subject.forwarded();
    run_python("redis_py_cluster.py", &arguments);
    assert_eq!(subject.forwarded(), forwarded, "a key went to a core that does not own it");
}

fn sync_commands(connection: &mut Connection) -> RedisResult<()> {
    let pong: String = redis::cmd("PING").query(connection)?;
    assert_eq!(pong, "PONG");
    let _: () = connection.set("a", 42)?;
    assert_eq!(connection.get::<_, i64>("a")?, 42);
    assert_eq!(connection.get::<_, Option<String>>("nothing")?, None);
    assert_eq!(connection.incr::<_, _, i64>("a", 8)?, 50);
    assert_eq!(connection.incr::<_, _, f64>("a", 0.5)?.to_string(), "50.5");
    let options = SetOptions::default().conditional_set(ExistenceCheck::NX).get(true);
    assert_eq!(connection.set_options::<_, _, Option<String>>("a", 1, options)?.as_deref(), Some("50.5"));
    let options = SetOptions::default().with_expiration(SetExpiry::EX(100));
    let _: () = connection.set_options("b", vec![0_u8, 255, 13, 10], options)?;
    assert_eq!(connection.get::<_, Vec<u8>>("b")?, [0, 255, 13, 10]);
    assert!((90..=100).contains(&connection.ttl::<_, i64>("b")?));
    assert!(connection.persist::<_, bool>("b")?);
    let _: () = connection.mset(&[("m1", 1), ("m2", 2)])?;
    assert_eq!(connection.mget::<_, Vec<Option<i64>>>(&["m1", "m2", "m3"])?, [Some(1), Some(2), None]);
    assert_eq!(connection.append::<_, _, usize>("m1", "23")?, 3);
    assert_eq!(connection.getrange::<_, String>("m1", 1, -1)?, "23");
    assert_eq!(connection.del::<_, usize>(&["m1", "m2", "m3"])?, 2);
    assert!(connection.exists::<_, bool>("a")?);
    let mut scanned: Vec<String> = connection.scan::<String>()?.collect::<RedisResult<_>>()?;
    scanned.sort();
    assert_eq!(scanned, ["a", "b"]);
    let error = connection.incr::<_, _, i64>("b", 1).expect_err("bytes are no number");
    assert_eq!(error.code(), Some("ERR"), "{error:?}");
    assert!(error.to_string().contains("value is not an integer or out of range"), "{error:?}");
    let (one, two): (i64, Vec<u8>) =
        redis::pipe().cmd("SET").arg("p").arg(1).ignore().cmd("INCR").arg("p").cmd("GET").arg("b").query(connection)?;
    assert_eq!((one, two), (2, vec![0, 255, 13, 10]));
    let info: redis::InfoDict = redis::cmd("INFO").query(connection)?;
    assert!(info.get::<String>("redis_version").is_some());
    let _: () = redis::cmd("FLUSHALL").query(connection)?;
    assert_eq!(redis::cmd("DBSIZE").query::<usize>(connection)?, 0);
    Ok(())
}

#[test]
fn redis_rs_works_over_both_protocols() {
    let directory = directory();
    let subject = Subject::start(directory.path(), &["--sync-writes=false"]);
    for protocol in ["resp2", "resp3"] {
        let client = Client::open(format!("redis://{}/?protocol={protocol}", subject.address())).expect("an address");
        let mut connection = client.get_connection().expect("the server greets");
        sync_commands(&mut connection).unwrap_or_else(|error| panic!("{protocol}: {error:?}"));
    }
}

#[test]
fn redis_rs_sends_each_key_to_the_core_that_owns_it() {
    let directory = directory();
    let subject =
        Subject::start_cluster(directory.path(), &["--sync-writes=false", "--cores", &several_cores().to_string()]);
    let client = ClusterClient::new(vec![format!("redis://{}", subject.address())]).expect("an address");
    let mut connection = client.get_connection().expect("a cluster");
    let forwarded = subject.forwarded();
    for number in 0..500 {
        let key = format!("key:{number}");
        let _: () = connection.set(&key, number).expect("stored");
        assert_eq!(connection.get::<_, i64>(&key).expect("there"), number);
        assert_eq!(connection.incr::<_, _, i64>(&key, 1).expect("a number"), number + 1);
    }
    let keys: Vec<String> = (0..100).map(|number| format!("{{t}}{number}")).collect();
    let pairs: Vec<(&String, usize)> = keys.iter().zip(0..).collect();
    let _: () = connection.mset(&pairs).expect("one slot");
    assert_eq!(connection.mget::<_, Vec<usize>>(&keys).expect("one slot"), (0..100).collect::<Vec<_>>());
    assert_eq!(subject.forwarded(), forwarded, "a key went to a core that does not own it");
    // Another core's key is served all the same, and counted: the figure above is no accident.
    for address in subject.core_addresses() {
        let mut client = crate::support::RespClient::connect(address);
        for number in 0..20 {
            assert_eq!(client.say(&format!("GET key:{number}")).text(), (number + 1).to_string());
        }
    }
    if subject.core_addresses().len() > 1 {
        assert_eq!(subject.forwarded(), forwarded + 20, "each key has one owner");
    }
}

/// The password of a node whose file is in `directory`.
fn password_file(directory: &std::path::Path, password: &str) -> String {
    let path = directory.join("password");
    std::fs::write(&path, password).expect("a writable directory");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("our own file");
    path.to_str().expect("a readable path").to_owned()
}

#[test]
fn libraries_and_tools_say_the_password_when_they_have_one() {
    // What they do with it is theirs; redis-server would be told in another way.
    if crate::support::servers::redis_is_the_subject() {
        return;
    }
    let (directory, data) = (directory(), crate::support::directory());
    let path = password_file(directory.path(), "sesame");
    let cores = several_cores().to_string();
    let subject = Subject::start(data.path(), &["--sync-writes=false", "--cores", &cores, "--password-file", &path]);
    let address = subject.address();

    let refused = Client::open(format!("redis://{address}/")).and_then(|client| client.get_connection()).map(|_| ());
    let asked =
        Client::open(format!("redis://:wrong@{address}/")).and_then(|client| client.get_connection()).map(|_| ());
    // Without a password redis-rs connects, and is refused with its first command.
    assert!(asked.is_err() && refused.is_ok(), "{asked:?} {refused:?}");
    for (scheme, query) in [(":sesame", ""), ("default:sesame", ""), (":sesame", "?protocol=resp3")] {
        let client = Client::open(format!("redis://{scheme}@{address}/{query}")).expect("a sound address");
        let mut connection = client.get_connection().expect("it is let in");
        let _: () = connection.set("key", scheme).expect("stored");
        assert_eq!(connection.get::<_, String>("key").expect("read"), scheme);
    }
    let nodes: Vec<String> =
        subject.core_addresses().iter().map(|address| format!("redis://:sesame@{address}/")).collect();
    if nodes.len() > 1 {
        let cluster = ClusterClient::new(nodes).expect("sound addresses");
        let mut connection = cluster.get_connection().expect("it is let in");
        for number in 0..50 {
            let _: () = connection.set(format!("key:{number}"), number).expect("stored");
            assert_eq!(connection.get::<_, i64>(format!("key:{number}")).expect("read"), number);
        }
    }

    let script = "import redis, sys\n\
        host, port = sys.argv[1], int(sys.argv[2])\n\
        good = redis.Redis(host=host, port=port, password='sesame')\n\
        assert good.set('py', 'x') and good.get('py') == b'x'\n\
        for password in (None, 'wrong'):\n\
        \x20   try:\n\
        \x20       redis.Redis(host=host, port=port, password=password).get('py')\n\
        \x20   except (redis.AuthenticationError, redis.ResponseError): continue\n\
        \x20   raise SystemExit('let in with %r' % password)\n\
        print(': ok')";
    let output = Command::new(python()).args(["-c", script]).args(place(&subject)).output().expect("it starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains(": ok"), "{said}");

    let cli = |password: &str| {
        let mut command = Command::new(crate::support::servers::program("redis-cli"));
        command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "GET", "py"]);
        let output = command.env("REDISCLI_AUTH", password).output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(cli("sesame"), "x\n");
    assert!(cli("wrong").contains("NOAUTH"));
}
