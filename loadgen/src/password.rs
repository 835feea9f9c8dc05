//! The server's password: where it comes from, and how each wire says it.
//!
//! Place in the flow: read once, before anything is connected; said first on each connection, before the load.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use eyot_protocol::credentials::{is_private, Password, PASSWORD_FILE_BYTES_MAX};

use crate::error::LoadError;

/// The variable that may hold the password itself.
pub const PASSWORD_VARIABLE: &str = "EYOT_PASSWORD";

/// The password that was asked for; `variable` is the value of [`PASSWORD_VARIABLE`].
///
/// # Errors
/// [`LoadError::Usage`], which never says what is in the file.
pub fn load_password(file: Option<&Path>, variable: Option<OsString>) -> Result<Option<Password>, LoadError> {
    let refuse = |message: String| Err(LoadError::Usage(message));
    match (file, variable) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            refuse(format!("--password-file: {PASSWORD_VARIABLE} is set as well; give one of the two"))
        }
        (None, Some(text)) => {
            Password::new(text.as_bytes()).map(Some).or_else(|error| refuse(format!("{PASSWORD_VARIABLE}: {error}")))
        }
        (Some(path), None) => {
            read(path).map(Some).or_else(|what| refuse(format!("--password-file {}: {what}", path.display())))
        }
    }
}

fn read(path: &Path) -> Result<Password, String> {
    let unreadable = |error: std::io::Error| error.to_string();
    let not_waiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(not_waiting).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    if !is_private(metadata.mode()) {
        return Err(format!("its mode {:03o} lets others at it; chmod 600 it", metadata.mode() & 0o7777));
    }
    let mut bytes = Vec::with_capacity(PASSWORD_FILE_BYTES_MAX);
    file.take(PASSWORD_FILE_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    Password::of_file(&bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_comes_from_a_private_file_or_the_environment_and_not_from_both() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "canary\n").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        let bytes = |loaded: Option<Password>| loaded.map(|password| password.bytes().to_vec());
        assert_eq!(bytes(load_password(Some(&path), None).unwrap()), Some(b"canary".to_vec()));
        assert_eq!(bytes(load_password(None, Some("canary".into())).unwrap()), Some(b"canary".to_vec()));
        assert_eq!(bytes(load_password(None, None).unwrap()), None);
        let refused = |file: &Path, variable: Option<&str>| {
            load_password(Some(file), variable.map(OsString::from)).unwrap_err().to_string()
        };
        assert!(refused(&path, Some("canary")).contains("as well"));
        assert!(refused(directory.path(), None).contains("regular"));
        mode(0o644);
        let message = refused(&path, None);
        assert!(message.contains("644") && !message.contains("canary"), "{message}");
    }
}
