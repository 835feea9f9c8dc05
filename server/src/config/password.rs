//! Where the password comes from: a file that only its owner may read, or the environment.
//!
//! Place in the flow: start-up, by `main`. There is no flag for the password itself: a command line is for everybody to
//! read.
//!
//! Invariant: nothing of the password is in an error.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use eyot_protocol::credentials::{is_private, Password, PASSWORD_FILE_BYTES_MAX};

use super::settings::usage;
use super::Config;
use crate::error::{Stop, StopReason};

/// The variable that may hold the password itself.
pub const PASSWORD_VARIABLE: &str = "EYOT_PASSWORD";

/// The password that the configuration asks for, if it asks for one. `variable` is the value of [`PASSWORD_VARIABLE`].
///
/// # Errors
/// [`StopReason::Password`], or [`StopReason::Usage`] where there are two.
pub fn load_password(config: &Config, variable: Option<OsString>) -> Result<Option<Password>, Stop> {
    match (config.password_file.as_deref(), variable) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(usage("--password-file", "EYOT_PASSWORD is set as well", "give the password in one of the two"))
        }
        (Some(path), None) => read(path).map(Some),
        (None, Some(text)) => Password::new(text.as_bytes()).map(Some).map_err(|error| {
            stop(format!("{PASSWORD_VARIABLE}: {error}"), "set it to the password, or remove it to run without one")
        }),
    }
}

fn stop(cause: String, remedy: &str) -> Stop {
    Stop::new(StopReason::Password, cause, remedy)
}

fn read(path: &Path) -> Result<Password, Stop> {
    let refuse = |what: String, remedy: &str| stop(format!("--password-file {}: {what}", path.display()), remedy);
    let unreadable = |error: std::io::Error| {
        refuse(error.to_string(), "name a file that the user who runs the server owns and may read")
    };
    // A pipe that nobody writes to must not make the start wait.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(refuse("it is no regular file".to_owned(), "put the password into a file"));
    }
    if !is_private(metadata.mode()) {
        let mode = metadata.mode() & 0o7777;
        let remedy = "let only its owner read it: chmod 600, and chown to the user who runs the server";
        return Err(refuse(format!("its mode {mode:03o} lets others at it"), remedy));
    }
    let mut bytes = Vec::with_capacity(PASSWORD_FILE_BYTES_MAX);
    file.take(PASSWORD_FILE_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    let password = Password::of_file(&bytes);
    // The one copy that stays is the one that attempts are compared with.
    bytes.fill(0);
    std::hint::black_box(&bytes);
    password.map_err(|error| refuse(error.to_string(), "write one password into it, and nothing else"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use clap::Parser;
    use eyot_protocol::limits::MAX_PASSWORD_BYTES;

    const CANARY: &str = "canary-of-the-password";

    fn load(path: Option<&Path>, variable: Option<&str>) -> Result<Option<Password>, Stop> {
        let mut config = Config::parse_from(["eyot-server"]);
        config.password_file = path.map(Path::to_path_buf);
        load_password(&config, variable.map(OsString::from))
    }

    #[test]
    fn a_password_comes_from_one_place_or_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, format!("{CANARY}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let expected = Password::new(CANARY.as_bytes()).unwrap();
        assert_eq!(load(Some(&path), None), Ok(Some(expected.clone())));
        assert_eq!(load(None, Some(CANARY)), Ok(Some(expected)));
        assert_eq!(load(None, None), Ok(None));
        let both = load(Some(&path), Some(CANARY)).unwrap_err();
        assert_eq!(both.reason, StopReason::Usage);
        assert!(!both.to_string().contains(CANARY));
        assert_eq!(load(None, Some("")).unwrap_err().reason, StopReason::Password);
    }

    #[test]
    fn a_file_that_will_not_do_is_refused_with_its_path_and_without_its_contents() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let longest = [CANARY, &"x".repeat(MAX_PASSWORD_BYTES)].concat();
        for (contents, mode, word) in [
            (CANARY, 0o640, "640"),
            (CANARY, 0o604, "604"),
            (CANARY, 0o620, "620"),
            ("", 0o600, "empty"),
            ("\n", 0o600, "empty"),
            (&longest, 0o600, "512"),
        ] {
            std::fs::write(&path, contents).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let stop = load(Some(&path), None).unwrap_err();
            assert_eq!(stop.reason, StopReason::Password);
            let text = stop.to_string();
            assert!(text.contains(word) && text.contains(path.to_str().unwrap()) && !text.contains(CANARY), "{text}");
        }
        for (path, word) in [(directory.path().join("missing"), "No such file"), (directory.path().into(), "regular")] {
            assert!(load(Some(&path), None).unwrap_err().to_string().contains(word));
        }
    }
}
