//! The repository as the rules see it: its text files, and Rust code without its comments, strings and tests.
//!
//! Invariant: blanking keeps every line where it was, so that a finding's line number is the file's.
//!
//! Deliberately not a Rust parser: it knows just enough of the tokens not to take a word in a string for code.

use std::fs;
use std::path::Path;

/// Directories that hold no source of ours, or others' in their own form.
const SKIPPED_DIRECTORIES: [&str; 7] = ["target", ".git", "data", "artifacts", "corpus", "coverage", "third_party"];

/// One text file. Its path is relative to the repository, with `/`.
pub struct Source {
    pub path: String,
    pub text: String,
    /// Whether another file declares this one as a module of its tests.
    test_module: bool,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), test_module: false }
    }

    pub fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }

    pub fn is_markdown(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "md")
    }

    /// Whether the whole file is a test, a benchmark or an example: by where it lies, or by who declares it.
    pub fn is_test_file(&self) -> bool {
        self.test_module
            || self.path.split('/').any(|part| matches!(part, "tests" | "benches" | "examples" | "tests.rs"))
    }

    /// The code of a Rust file: comments, string contents and character literals are blanks.
    pub fn code(&self) -> String {
        blank_comments_and_strings(&self.text)
    }

    /// The code that goes into a build: like [`Source::code`], and `#[cfg(test)]` items are blanks, too.
    pub fn built_code(&self) -> String {
        if self.is_test_file() {
            String::new()
        } else {
            blank_test_items(&self.code())
        }
    }
}

/// Every UTF-8 file under `root` that is ours, in order of path.
pub fn text_files(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a readable directory") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_dir() {
                if !SKIPPED_DIRECTORIES.contains(&name.as_str()) {
                    directories.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                let relative = path.strip_prefix(root).expect("found under the root");
                found.push(Source::new(&relative.to_string_lossy(), &text));
            }
        }
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    mark_test_modules(&mut found);
    found
}

/// Marks the files of modules that are declared as `#[cfg(test)] mod name;`.
fn mark_test_modules(sources: &mut [Source]) {
    let declared: Vec<String> = sources.iter().filter(|source| source.is_rust()).flat_map(test_modules).collect();
    for source in sources {
        let module = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        source.test_module = declared.iter().any(|test| {
            module.strip_prefix(test.as_str()).is_some_and(|below| below.is_empty() || below.starts_with('/'))
        });
    }
}

/// The paths, without `.rs`, of the test modules that `source` declares.
fn test_modules(source: &Source) -> Vec<String> {
    let (directory, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let directory = match file {
        "mod.rs" | "lib.rs" | "main.rs" => directory.to_owned(),
        _ => source.path.trim_end_matches(".rs").to_owned(),
    };
    let code = source.code();
    let items = code.split("#[cfg(test)]").skip(1);
    let declared = items.filter_map(|item| item.trim_start().strip_prefix("mod ")?.split_once(';'));
    let names = declared.map(|(name, _)| name).filter(|name| name.chars().all(|c| c.is_alphanumeric() || c == '_'));
    names.map(|name| format!("{directory}/{name}")).collect()
}

/// The lines of `text` that contain `word` as a whole identifier, counted from 1.
pub fn lines_with_word(text: &str, word: &str) -> Vec<usize> {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let has_word = |line: &str| {
        line.match_indices(word).any(|(at, _)| {
            !line[..at].chars().next_back().is_some_and(is_part)
                && !line[at + word.len()..].chars().next().is_some_and(is_part)
        })
    };
    text.lines().enumerate().filter(|(_, line)| has_word(line)).map(|(index, _)| index + 1).collect()
}

/// The number of the line in which the byte `at` of `text` stands, counted from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// How many characters the comment, string or character literal at the start of `rest` takes; `None`: it is code.
fn blank_length(rest: &[char]) -> Option<usize> {
    let at = |index: usize| rest.get(index).copied().unwrap_or('\n');
    match (at(0), at(1)) {
        ('/', '/') => Some(rest.iter().position(|&character| character == '\n').unwrap_or(rest.len())),
        ('/', '*') => Some(block_comment_length(rest)),
        ('"', _) => Some(quoted_length(rest, '"')),
        ('r', '"' | '#') => raw_string_length(rest),
        ('\'', '\\') => Some(quoted_length(rest, '\'')),
        // A lifetime has no quote after its first letter.
        ('\'', _) if at(2) == '\'' => Some(3),
        _ => None,
    }
}

fn block_comment_length(rest: &[char]) -> usize {
    let (mut depth, mut index) = (0, 0);
    while index < rest.len() {
        match (rest[index], rest.get(index + 1)) {
            ('/', Some('*')) => (depth, index) = (depth + 1, index + 2),
            ('*', Some('/')) => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            break;
        }
    }
    index
}

fn quoted_length(rest: &[char], quote: char) -> usize {
    let mut index = 1;
    while index < rest.len() && rest[index] != quote {
        index += if rest[index] == '\\' { 2 } else { 1 };
    }
    (index + 1).min(rest.len())
}

/// `None` if it is a raw identifier (`r#type`), not a raw string.
fn raw_string_length(rest: &[char]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&character| character == '#').count();
    let open = hashes + 2;
    if rest.get(open - 1) != Some(&'"') {
        return None;
    }
    let closes = |index: usize| rest[index] == '"' && rest[index + 1..].iter().take(hashes).all(|&c| c == '#');
    let close = (open..rest.len().saturating_sub(hashes)).find(|&index| closes(index));
    Some(close.map_or(rest.len(), |index| index + 1 + hashes))
}

fn blank_comments_and_strings(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut blanked = String::with_capacity(text.len());
    let mut index = 0;
    while index < characters.len() {
        // An `r` that ends a longer name starts no raw string.
        let inside_name = index > 0 && (characters[index - 1].is_alphanumeric() || characters[index - 1] == '_');
        let length = if inside_name && characters[index] == 'r' { None } else { blank_length(&characters[index..]) };
        match length {
            Some(length) => {
                let blanks = characters[index..index + length].iter();
                blanked.extend(blanks.map(|&character| if character == '\n' { '\n' } else { ' ' }));
                index += length;
            }
            None => {
                blanked.push(characters[index]);
                index += 1;
            }
        }
    }
    blanked
}

/// Blanks every item behind `#[cfg(test)]`: up to its closing brace, or to its semicolon if that comes first.
fn blank_test_items(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut built = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        let (before, item) = rest.split_at(start);
        let end = item_length(&item[MARK.len()..]) + MARK.len();
        built.push_str(before);
        built.extend(item[..end].chars().filter(|&character| character == '\n'));
        rest = &item[end..];
    }
    built.push_str(rest);
    built
}

fn item_length(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, character) in item.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

#[test]
fn comments_strings_and_characters_are_blanked_and_lines_stay() {
    let source = Source::new(
        "core/src/a.rs",
        "let a = \"glommio \\\" tokio\"; // tokio\n/* rand /* nested */ rand */ let b = r#\"Instant \" \"#;\n\
         let c: &'static str = for_r\"tokio\"; let d = '\"'; let e = '\\''; code(r#type);\n",
    );
    let code = source.code();
    assert_eq!(code.lines().count(), source.text.lines().count());
    for word in ["glommio", "tokio", "rand", "nested", "Instant"] {
        assert_eq!(lines_with_word(&code, word), Vec::<usize>::new(), "{word} is still in {code}");
    }
    assert_eq!(lines_with_word(&code, "code"), [3]);
    assert_eq!(lines_with_word(&code, "static"), [3]);
}

#[test]
fn items_that_are_only_tests_are_no_built_code_and_what_follows_them_is() {
    let text =
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { if x {} }\n}\n#[cfg(test)]\nmod more;\nfn last() {}\n";
    let code = Source::new("server/src/a.rs", text).built_code();
    assert_eq!(lines_with_word(&code, "last"), [8]);
    assert_eq!(lines_with_word(&code, "b"), Vec::<usize>::new());
    assert_eq!(lines_with_word(&code, "more"), Vec::<usize>::new());
    assert_eq!(Source::new("server/src/wal/tests.rs", text).built_code(), "");
}

#[test]
fn a_word_is_a_whole_identifier() {
    assert_eq!(lines_with_word("deny(unsafe_code)\nunsafe { }\nRing::new\nRinging", "unsafe"), [2]);
    assert_eq!(lines_with_word("Ringing\nRing::new", "Ring"), [2]);
}

#[test]
fn a_file_is_a_test_when_its_parent_says_so() {
    let mut sources = [
        Source::new(
            "server/src/wal/mod.rs",
            "#[cfg(test)]\nmod simulation;\nmod writer;\n#[cfg(test)]\nmod a { mod b; }",
        ),
        Source::new("server/src/wal/simulation.rs", "fn f() {}"),
        Source::new("server/src/wal/simulation/disk.rs", "fn f() {}"),
        Source::new("server/src/wal/writer.rs", "#[cfg(test)]\nmod cases;"),
        Source::new("server/src/wal/writer/cases.rs", "fn f() {}"),
        Source::new("server/src/wal/b.rs", "fn f() {}"),
    ];
    mark_test_modules(&mut sources);
    let tests: Vec<bool> = sources.iter().map(Source::is_test_file).collect();
    assert_eq!(tests, [false, true, true, false, true, false]);
}
