//! From a line to words.
//!
//! Place in the flow: between the prompt (or the pipe) and [`crate::commands`].
//!
//! - Blanks separate words.
//! - In `"..."` a backslash begins an escape: `\n \r \t \0 \\ \" \'` and `\xHH` for any byte.
//! - In `'...'` everything stands for itself, save `\'`; so JSON can be pasted as it is.
//! - Elsewhere a backslash is a backslash.
//!
//! Works on bytes: a key need not be text.

/// Splits `line` into words.
///
/// # Errors
/// What is wrong, and in which column (counted in bytes from 1).
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while let Some(&first) = rest.first() {
        let column = line.len() - rest.len() + 1;
        let (word, after) = match first {
            b'"' | b'\'' => quoted(&rest[1..], first).map_err(|reason| format!("column {column}: {reason}"))?,
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                (rest[..end].to_vec(), &rest[end..])
            }
        };
        if after.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
            return Err(format!("column {}: a blank must follow a closing quote", line.len() - after.len() + 1));
        }
        words.push(word);
        rest = after.trim_ascii_start();
    }
    Ok(words)
}

/// The word up to the closing quote, and what follows that.
fn quoted(mut rest: &[u8], quote: u8) -> Result<(Vec<u8>, &[u8]), String> {
    let mut word = Vec::new();
    loop {
        let (&byte, after) = rest.split_first().ok_or_else(|| format!("no closing {}", char::from(quote)))?;
        rest = after;
        if byte == quote {
            return Ok((word, rest));
        }
        if byte != b'\\' {
            word.push(byte);
        } else if quote == b'\'' {
            if rest.first() == Some(&b'\'') {
                word.push(b'\'');
                rest = &rest[1..];
            } else {
                word.push(b'\\');
            }
        } else {
            let (byte, after) = escape(rest)?;
            word.push(byte);
            rest = after;
        }
    }
}

/// The byte of the escape whose backslash was taken, and what follows it.
fn escape(rest: &[u8]) -> Result<(u8, &[u8]), String> {
    let (&letter, after) = rest.split_first().ok_or("a backslash at the end of the line")?;
    let byte = match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'0' => 0,
        b'\\' | b'"' | b'\'' => letter,
        b'x' => {
            let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            let byte = digits
                .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .ok_or("\\x takes two hexadecimal digits")?;
            return Ok((byte, &after[2..]));
        }
        other => {
            return Err(format!(
                "unknown escape \\{}; there are \\n \\r \\t \\0 \\\\ \\\" \\' and \\xHH",
                other.escape_ascii()
            ))
        }
    };
    Ok((byte, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        let words = split(line.as_bytes()).expect("splits");
        words.into_iter().map(|word| String::from_utf8(word).expect("text")).collect()
    }

    fn error(line: &str) -> String {
        split(line.as_bytes()).expect_err("an error")
    }

    #[test]
    fn blanks_separate_words() {
        assert_eq!(words("  set  user:1\tJohn \r\n"), ["set", "user:1", "John"]);
        assert!(words("   ").is_empty());
        assert_eq!(words(r#"set k """#), ["set", "k", ""]);
    }

    #[test]
    fn double_quotes_take_escapes() {
        assert_eq!(words(r#"set k "a b\n\t\"\\ \x41""#), ["set", "k", "a b\n\t\"\\ A"]);
        assert_eq!(split(br#""\xff\0""#), Ok(vec![vec![0xFF, 0]]));
    }

    #[test]
    fn single_quotes_keep_everything_but_the_quote() {
        assert_eq!(words(r#"set k '{"a":"x\ny"} it\'s'"#), ["set", "k", r#"{"a":"x\ny"} it's"#]);
        assert_eq!(words(r"set path C:\new"), ["set", "path", r"C:\new"]);
    }

    #[test]
    fn a_quote_within_a_word_is_a_character() {
        assert_eq!(words("get it's"), ["get", "it's"]);
    }

    #[test]
    fn mistakes_are_named_with_their_column() {
        assert_eq!(error(r#"set k "abc"#), "column 7: no closing \"");
        assert_eq!(error("get 'a'b"), "column 8: a blank must follow a closing quote");
        assert!(error(r#""\q""#).contains("unknown escape \\q"));
        for line in [r#""\x4""#, r#""\xg0""#, r#""\x+1""#, r#""\x"#] {
            assert!(error(line).contains("two hexadecimal digits"), "{line}");
        }
        assert!(error(r#""a\"#).contains("backslash at the end"));
    }
}
