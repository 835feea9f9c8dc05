//! The password from a file, under the same rules as the server's.
//!
//! Place in the flow: read before a client connects; sent with HELLO on each of its connections.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use eyot_protocol::credentials::{is_private, Password, PASSWORD_FILE_BYTES_MAX};
use eyot_protocol::ErrorCode;

use crate::error::Error;

/// Reads the password that the file at `path` holds, up to one line end behind it. Only the file's owner may have
/// access to it.
///
/// # Errors
/// [`Error::Invalid`], which names the file and never what is in it.
pub fn read_password(path: &Path) -> Result<Password, Error> {
    /// Does not wait where nobody writes to a pipe.
    const O_NONBLOCK: i32 = 0o4000;
    let refuse =
        |what: String| Error::invalid(ErrorCode::InvalidArgument, format!("password file {}: {what}", path.display()));
    let unreadable = |error: std::io::Error| refuse(error.to_string());
    let file = File::options().read(true).custom_flags(O_NONBLOCK).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(refuse("it is no regular file".to_owned()));
    }
    if !is_private(metadata.mode()) {
        let mode = metadata.mode() & 0o7777;
        return Err(refuse(format!("its mode {mode:03o} lets others at it; chmod 600 it")));
    }
    let mut bytes = Vec::with_capacity(PASSWORD_FILE_BYTES_MAX);
    file.take(PASSWORD_FILE_BYTES_MAX as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    Password::of_file(&bytes).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_private_file_with_a_password_will_do() {
        let path = std::env::temp_dir().join(format!("eyot-client-password-{}", std::process::id()));
        for (contents, mode, expected) in
            [("canary\n", 0o600, Ok(&b"canary"[..])), ("canary", 0o640, Err("640")), ("\n", 0o600, Err("empty"))]
        {
            std::fs::write(&path, contents).expect("a writable directory");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("our own file");
            match (read_password(&path), expected) {
                (Ok(password), Ok(expected)) => assert_eq!(password.bytes(), expected),
                (Err(error), Err(word)) => {
                    let text = error.to_string();
                    assert!(text.contains(word) && !text.contains("canary"), "{text}");
                }
                (found, _) => panic!("{contents:?}: {found:?}"),
            }
        }
        std::fs::remove_file(&path).expect("our own file");
    }
}
