//! A server that wants a password: each connection says it first, and no one else hears of it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use eyot_client::{Client, Error, ErrorCode, Operation, Options, Outcome, Password, Value};

use crate::command_line::{code, eyot};
use crate::server::Mock;

const PASSWORD: &[u8] = b"canary sesame";

fn options(password: Option<&[u8]>) -> Options {
    let password = password.map(|bytes| Password::new(bytes).expect("a password"));
    Options { password, pool_size: 3, ..Options::default() }
}

#[tokio::test]
async fn every_connection_says_the_password_before_anything_else() {
    let mock = Mock::with_password(PASSWORD);
    let client = mock.client(options(Some(PASSWORD))).await;
    for number in 0..9_i64 {
        client.set("k", number).await.expect("stored");
    }
    assert_eq!(client.get("k").await.expect("answered").expect("there").value, Value::from(8_i64));
    assert_eq!(mock.connections(), mock.count(Operation::Hello));
    mock.close_connections();
    client.get("k").await.expect("it says it again");
}

#[tokio::test]
async fn a_missing_or_wrong_password_is_the_servers_error_and_is_not_tried_again() {
    let mock = Mock::with_password(PASSWORD);
    for (password, expected) in
        [(None, ErrorCode::AuthenticationRequired), (Some(&b"guess"[..]), ErrorCode::AuthenticationFailed)]
    {
        let error = Client::connect(&mock.address.to_string(), options(password)).await.expect_err("refused");
        assert!(matches!(&error, Error::Server { error, .. } if error.code() == Some(expected)), "{error:?}");
        assert!(!error.is_retryable() && error.outcome() == Outcome::Failed, "{error:?}");
    }
    assert_eq!(mock.count(Operation::Hello), 2);
}

#[test]
fn options_do_not_show_the_password() {
    assert!(!format!("{:?}", options(Some(PASSWORD))).contains("canary"));
}

#[test]
fn the_command_line_takes_it_from_a_file_or_the_environment() {
    let mock = Mock::with_password(PASSWORD);
    let path = std::env::temp_dir().join(format!("eyot-password-{}", std::process::id()));
    let mut file =
        std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path).expect("a writable directory");
    file.write_all(&[PASSWORD, b"\n"].concat()).expect("a writable file");
    let run = |arguments: &[&str], variable: Option<&[u8]>| {
        let mut command = eyot();
        command.args(["--address", &mock.address.to_string()]).args(arguments);
        if let Some(text) = variable {
            command.env("EYOT_PASSWORD", std::str::from_utf8(text).expect("text"));
        }
        command.output().expect("runs")
    };
    let path_text = path.to_str().expect("text");
    assert_eq!(code(&run(&["--password-file", path_text, "ping"], None)), 0);
    assert_eq!(code(&run(&["ping"], Some(PASSWORD))), 0);
    assert_eq!(code(&run(&["ping"], None)), 4);
    let wrong = run(&["--json", "ping"], Some(b"canary"));
    let said = String::from_utf8(wrong.stdout.clone()).expect("text");
    assert!(code(&wrong) == 4 && said.contains("AUTHENTICATION_FAILED") && !said.contains("canary"), "{said}");
    for (arguments, variable) in [
        (&["--password-file", path_text, "ping"][..], Some(PASSWORD)),
        (&["--password-file", "/nowhere", "ping"], None),
    ] {
        assert_eq!(code(&run(arguments, variable)), 2, "{arguments:?}");
    }
    std::fs::remove_file(&path).expect("our own file");
}
