//! Training and test records as JSON lines: `{"prompt", "completion"}`, `{"messages": […]}` or `{"text"}`; a `*.txt` file is one text. Reads with limits and says what is
//! wrong where; writes every record in one way only. What is a text is [`crate::base::text`]'s business, what is JSON [`crate::base::json`]'s. It knows
//! nothing of tokens, splits or steps.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::json::{self, JsonError, shown};
use crate::base::memory::{self, Growth};
use crate::base::{files, suggest, text};
use crate::model::chat::Data;
use crate::model::{Conversation, Message, ModelError};
use crate::steps::{Failure, Io};

/// Longest line, and largest text file, that is read. A prompt for a small model has a few kilobytes, a book some megabytes; what is longer is
/// almost surely not JSON lines.
pub const MAX_LINE_BYTES: u64 = 64 << 20;

/// Most bytes that one set may hold, since it is kept in memory while a step works on it.
pub const MAX_SET_BYTES: u64 = 4 << 30;

/// What a record takes beside its text, about.
const RECORD_BYTES: u64 = 128;

/// How many wrong lines are shown before reading stops.
const MAX_PROBLEMS: usize = 20;

/// How many files that are not read are named.
const MAX_NAMED: usize = 10;

/// What `dataset` and `teacher_labels` write beside their data: counts, which no reader misses.
const COMPANIONS: [&str; 2] = ["dataset.json", "teacher_labels.json"];

/// One example, in one of the three shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Pair { prompt: String, completion: Option<String> },
    Messages(Conversation),
    Text(String),
}

/// A record and the other keys of its line, which no model sees: an id, a site, a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub record: Record,
    pub extra: BTreeMap<String, Value>,
}

impl Record {
    /// Bytes of all its texts.
    pub fn text_bytes(&self) -> u64 {
        let bytes = match self {
            Record::Pair { prompt, completion } => prompt.len() + completion.as_ref().map_or(0, String::len),
            Record::Messages(chat) => chat.bytes(),
            Record::Text(text) => text.len(),
        };
        bytes as u64
    }

    /// What a model is asked: the prompt, the messages up to the last one of the assistant, or the whole text.
    pub fn prompt(&self) -> String {
        match self {
            Record::Pair { prompt, .. } => prompt.clone(),
            Record::Text(text) => text.clone(),
            Record::Messages(chat) => {
                chat.question().messages.iter().map(|message| message.text().into_owned()).collect::<Vec<_>>().join("\n")
            }
        }
    }

    /// What a model shall answer: the completion, or the assistant's last message.
    pub fn completion(&self) -> Option<Cow<'_, str>> {
        match self {
            Record::Pair { completion, .. } => completion.as_deref().map(Cow::Borrowed),
            Record::Messages(chat) => chat.messages.iter().rfind(|message| message.is_assistant()).map(Message::text),
            Record::Text(_) => None,
        }
    }
}

/// All records of a port, as [`read`] has them. Files of its folders that are no data are named in a warning.
pub fn of_port(io: &Io, port: &str) -> Result<Records, Failure> {
    warn_of_skipped(io, port)?;
    read(io.all(port))
}

/// Names the files of a port's folders that are not read.
pub fn warn_of_skipped(io: &Io, port: &str) -> Result<(), Failure> {
    let skipped: Vec<PathBuf> =
        io.all(port).iter().map(|path| folder(path)).collect::<Result<Vec<_>, _>>()?.into_iter().flat_map(|found| found.skipped).collect();
    if !skipped.is_empty() {
        io.warn(format!("of `{port}`, {}: {ENDINGS}", not_read(&skipped)));
    }
    Ok(())
}

/// Records, and where each stands.
#[derive(Clone, Debug, Default)]
pub struct Records {
    records: Vec<Record>,
    /// The number of its file, and its line there; 0 for a file that is one text.
    places: Vec<(usize, u64)>,
    files: Vec<PathBuf>,
}

impl std::ops::Deref for Records {
    type Target = [Record];

    fn deref(&self) -> &[Record] {
        &self.records
    }
}

impl Records {
    /// `data.jsonl:7`
    pub fn place(&self, index: usize) -> String {
        let (file, line) = self.places.get(index).copied().unwrap_or_default();
        let file = self.files.get(file).map_or_else(String::new, |file| file.display().to_string());
        if line == 0 { file } else { format!("{file}:{line}") }
    }

    /// What is wrong with a record.
    pub fn wrong(&self, index: usize, error: ModelError) -> Failure {
        match error {
            ModelError::Stopped | ModelError::Io { .. } | ModelError::Memory(_) | ModelError::Machine(_) => error.into(),
            error => Failure::new(format!("{}: {error}", self.place(index))),
        }
    }
}

/// All records of files, or of the `*.jsonl` and `*.txt` files below folders, in the paths' order. Other keys than a record's own are left out.
pub fn read(paths: &[PathBuf]) -> Result<Records, Failure> {
    let mut all = Records::default();
    read_placed(paths, &mut |file, number, line| {
        if all.files.last().is_none_or(|last| last != file) {
            all.files.push(file.to_path_buf());
        }
        all.places.push((all.files.len() - 1, number));
        all.records.push(line.record);
        Ok(())
    })?;
    Ok(all)
}

/// Calls `each` for every line in order; a line of white space is passed over. Up to 20 wrong lines are reported at once.
pub fn read_lines(paths: &[PathBuf], each: &mut dyn FnMut(Line) -> Result<(), Failure>) -> Result<(), Failure> {
    read_placed(paths, &mut |_, _, line| each(line))
}

/// With the line's file and number.
type EachPlaced<'a> = dyn FnMut(&Path, u64, Line) -> Result<(), Failure> + 'a;

fn read_placed(paths: &[PathBuf], each: &mut EachPlaced) -> Result<(), Failure> {
    let mut reading = Reading::default();
    for file in files_of(paths)? {
        reading.file(&file, each)?;
        if reading.problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    reading.end("each line is one JSON object: {\"prompt\", \"completion\"}, {\"messages\": [{\"role\", \"content\"}]} or {\"text\"}")
}

/// All lines as JSON objects of any keys, for those who know what the keys mean.
pub fn read_objects(paths: &[PathBuf]) -> Result<Vec<Fields>, Failure> {
    let mut reading = Reading::default();
    let mut objects = Vec::new();
    for file in files_of(paths)? {
        if is_text(&file) {
            reading.problems.push(format!("{}: a text, not JSON lines", file.display()));
        } else {
            reading.json_lines(&file, &mut |_, bytes, number| {
                if object(bytes, number)?.is_some() {
                    objects.push(fields(bytes, number)?);
                }
                Ok(Ok(()))
            })?;
        }
        if reading.problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    reading.end("each line is one JSON object").map(|()| objects)
}

/// Writes records as JSON lines: one order of keys, no spaces, `\n` behind each, so that equal records give equal bytes.
pub fn write(out: &mut dyn Write, line: &Line) -> io::Result<()> {
    let mut keys = Keys { out, first: true };
    match &line.record {
        Record::Pair { prompt, completion } => {
            keys.put("prompt", prompt)?;
            if let Some(completion) = completion {
                keys.put("completion", completion)?;
            }
        }
        Record::Messages(chat) => {
            let messages = chat.messages.iter().map(|message| Data::Table(message.fields().to_vec())).collect();
            keys.put("messages", &Data::List(messages))?;
            if let Some(tools) = &chat.tools {
                keys.put("tools", tools)?;
            }
            if let Some(documents) = &chat.documents {
                keys.put("documents", documents)?;
            }
        }
        Record::Text(text) => keys.put("text", text)?,
    }
    for (key, value) in &line.extra {
        keys.put(key, value)?;
    }
    out.write_all(b"}\n")
}

struct Keys<'a> {
    out: &'a mut dyn Write,
    first: bool,
}

impl Keys<'_> {
    fn put<T: serde::Serialize + ?Sized>(&mut self, key: &str, value: &T) -> io::Result<()> {
        self.out.write_all(if self.first { b"{" } else { b"," })?;
        self.first = false;
        serde_json::to_writer(&mut *self.out, key)?;
        self.out.write_all(b":")?;
        Ok(serde_json::to_writer(&mut *self.out, value)?)
    }
}

const ENDINGS: &str = "a dataset is a file of JSON lines or a text file (.txt), or a folder with files that end in .jsonl or .txt";

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

/// A text is a file of this ending, everything else is JSON lines.
fn is_text(path: &Path) -> bool {
    has_ending(path, "txt")
}

fn is_companion(path: &Path) -> bool {
    path.file_name().is_some_and(|name| COMPANIONS.iter().any(|known| name == *known))
}

/// What is below a path: the data in the order of the names, and what is none.
#[derive(Default)]
struct Folder {
    data: Vec<PathBuf>,
    /// Relative to the path.
    skipped: Vec<PathBuf>,
}

/// A file is itself, whatever its name; a folder is its `*.jsonl` and `*.txt` files, in upper or lower case.
fn folder(path: &Path) -> Result<Folder, Failure> {
    let facts = std::fs::metadata(path).map_err(|error| Failure::file("read", path, &error))?;
    if !facts.is_dir() {
        return Ok(Folder { data: vec![path.to_path_buf()], ..Folder::default() });
    }
    let names = files::walk(path).map_err(|error| Failure::file("read", path, &error))?;
    let (data, others): (Vec<PathBuf>, Vec<PathBuf>) = names.into_iter().partition(|name| is_text(name) || has_ending(name, "jsonl"));
    let data = data.into_iter().map(|name| path.join(name)).collect();
    Ok(Folder { data, skipped: others.into_iter().filter(|name| !is_companion(name)).collect() })
}

fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for path in paths {
        let found = folder(path)?;
        if found.data.is_empty() {
            let others = if found.skipped.is_empty() { String::new() } else { format!("; {}", not_read(&found.skipped)) };
            return Err(Failure::new(format!("`{}` holds no *.jsonl and no *.txt file{others}", path.display())).help(ENDINGS));
        }
        all.extend(found.data);
    }
    let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |found| found.len());
    let total: u64 = all.iter().map(size).fold(0, u64::saturating_add);
    // What is too much for any machine is told by the line at which it becomes too much.
    let fits = memory::check(total.min(MAX_SET_BYTES), "the data");
    fits.map_err(|shortage| Failure::from(shortage).help("use less of it, or shorten it with a `dataset` step on a larger machine"))?;
    Ok(all)
}

/// ``3 files are not read: `a.csv`, `b.json`, `c.parquet` ``
fn not_read(skipped: &[PathBuf]) -> String {
    let names: Vec<String> = skipped.iter().take(MAX_NAMED).map(|name| shown(&name.to_string_lossy())).collect();
    let listed = suggest::listed(&names.iter().map(String::as_str).collect::<Vec<_>>());
    match skipped.len() {
        1 => format!("1 file is not read: {listed}"),
        n if n > MAX_NAMED => format!("{n} files are not read: {listed}, …"),
        n => format!("{n} files are not read: {listed}"),
    }
}

/// Outside, what is wrong with the line; inside, why reading must stop.
type EachLine<'a> = dyn FnMut(bool, &[u8], u64) -> Result<Result<(), Failure>, String> + 'a;

#[derive(Default)]
struct Reading {
    bytes: u64,
    held: Growth,
    problems: Vec<String>,
}

impl Reading {
    fn file(&mut self, path: &Path, each: &mut EachPlaced) -> Result<(), Failure> {
        if !is_text(path) {
            return self.json_lines(path, &mut |is_well, bytes, number| match parse(bytes, number)? {
                Some(line) if is_well => Ok(each(path, number, line)),
                _ => Ok(Ok(())),
            });
        }
        let failed = |error: io::Error| Failure::file("read", path, &error);
        let mut bytes = Vec::new();
        let n = files::open(path).and_then(|file| file.take(MAX_LINE_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)? as u64;
        self.text(path, n, bytes, &mut |line| each(path, 0, line))
    }

    /// Calls `each` with every line and its number, and with whether all was well so far; what it says is wrong is a problem of that line.
    fn json_lines(&mut self, path: &Path, each: &mut EachLine) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::file("read", path, &error);
        let mut file = BufReader::new(files::open(path).map_err(failed)?);
        let mut bytes = Vec::new();
        for number in 1u64.. {
            bytes.clear();
            // One byte beyond the limit tells a long line from one that just fits; no more than that is ever held.
            let n = (&mut file).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes).map_err(failed)? as u64;
            if n == 0 {
                return Ok(());
            }
            self.count(n)?;
            if n > MAX_LINE_BYTES {
                let limit = MAX_LINE_BYTES >> 20;
                self.problems.push(format!("{}:{number}: the line is longer than {limit} MiB: is this JSON lines?", path.display()));
                return Ok(());
            }
            match each(self.problems.is_empty(), &bytes, number) {
                Ok(done) => done?,
                Err(problem) => self.problems.push(format!("{}:{number}: {problem}", path.display())),
            }
            if self.problems.len() >= MAX_PROBLEMS {
                return Ok(());
            }
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), Failure> {
        self.bytes += bytes;
        self.held.add(bytes + RECORD_BYTES, "the next part of the data")?;
        if self.bytes <= MAX_SET_BYTES {
            return Ok(());
        }
        Err(Failure::new(format!("the data holds more than {} GiB", MAX_SET_BYTES >> 30))
            .help("train on less of it, or shorten it with a `dataset` step"))
    }

    fn text(&mut self, path: &Path, n: u64, bytes: Vec<u8>, each: &mut dyn FnMut(Line) -> Result<(), Failure>) -> Result<(), Failure> {
        self.count(n)?;
        if n > MAX_LINE_BYTES {
            self.problems.push(format!("{}: the text is longer than {} MiB: divide it", path.display(), MAX_LINE_BYTES >> 20));
            return Ok(());
        }
        match text::decode(&bytes) {
            Ok(text) if self.problems.is_empty() => each(Line { record: Record::Text(text.into_owned()), extra: BTreeMap::new() }),
            Ok(_) => Ok(()),
            Err(error) => {
                self.problems.push(format!("{}:{}: {}", path.display(), error.line, error.why));
                Ok(())
            }
        }
    }

    fn end(self, help: &str) -> Result<(), Failure> {
        let count = match self.problems.len() {
            0 => return Ok(()),
            1 => "one line is wrong".to_string(),
            n if n < MAX_PROBLEMS => format!("{n} lines are wrong"),
            _ => format!("the first {MAX_PROBLEMS} wrong lines"),
        };
        Err(Failure::new(format!("cannot read the data: {count}\n{}", self.problems.join("\n"))).help(help))
    }
}

/// The line as a record, `None` for an empty one, or what was expected.
fn parse(bytes: &[u8], number: u64) -> Result<Option<Line>, String> {
    let Some(mut keys) = object(bytes, number)? else { return Ok(None) };
    let record = take_record(&mut keys, bytes, number)?;
    if let Record::Pair { completion: None, .. } = record
        && let Some(slip) = keys.keys().find(|key| is_nearly(key, "completion"))
    {
        return Err(format!("unknown key `{}`: did you mean `completion`?", shown(slip)));
    }
    Ok(Some(Line { record, extra: keys }))
}

/// The line as a JSON object, `None` for one of white space. `number` counts the file's lines from 1.
fn object(bytes: &[u8], number: u64) -> Result<Option<BTreeMap<String, Value>>, String> {
    let text = text::decode_line(bytes, number)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    match json::parse(text) {
        Ok(Value::Object(keys)) => Ok(Some(keys.into_iter().collect())),
        Ok(other) => Err(format!("expected a JSON object, found {}", noun(&other))),
        // The file's line stands in front, and the text has no other.
        Err(JsonError { what, column, .. }) => Err(format!("{what} at column {column}")),
    }
}

fn take_record(keys: &mut BTreeMap<String, Value>, bytes: &[u8], number: u64) -> Result<Record, String> {
    let shapes: Vec<&str> = ["prompt", "messages", "text"].into_iter().filter(|key| keys.contains_key(*key)).collect();
    match shapes[..] {
        ["prompt"] => {
            let prompt = take_string(keys, "prompt")?;
            let completion = match keys.get("completion") {
                Some(Value::Null) | None => keys.remove("completion").and(None),
                Some(_) => Some(take_string(keys, "completion")?),
            };
            Ok(Record::Pair { prompt, completion })
        }
        [] | [_] if keys.contains_key("completion") => Err("`completion` belongs to a `prompt`, and to nothing else".into()),
        ["messages"] => {
            // Once more, in the order in which they are written: a template may walk over them.
            let fields = fields(bytes, number)?;
            for key in CHAT {
                keys.remove(key);
            }
            take_conversation(&fields).map(Record::Messages)
        }
        ["text"] => take_string(keys, "text").map(Record::Text),
        [] => Err(format!("expected `prompt`, `messages` or `text`, found {}", listed(keys))),
        [..] => Err(format!(
            "expected one of {}, found all of them",
            shapes.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        )),
    }
}

fn take_string(keys: &mut BTreeMap<String, Value>, name: &str) -> Result<String, String> {
    match keys.remove(name) {
        Some(Value::String(text)) => Ok(text),
        other => Err(format!("`{name}` must be a string, not {}", noun(&other.unwrap_or_default()))),
    }
}

/// The keys that reach a chat template.
const CHAT: [&str; 3] = ["messages", "tools", "documents"];

fn take_conversation(chat: &Fields) -> Result<Conversation, String> {
    let messages = take_messages(chat.get("messages").cloned().unwrap_or(Data::Null))?;
    Ok(Conversation { messages, tools: take_tables(chat, "tools")?, documents: take_tables(chat, "documents")? })
}

fn take_tables(chat: &Fields, name: &str) -> Result<Option<Data>, String> {
    match chat.get(name).cloned() {
        None | Some(Data::Null) => Ok(None),
        Some(Data::List(items)) => match items.iter().find(|item| !matches!(item, Data::Table(_))) {
            None => Ok(Some(Data::List(items))),
            Some(item) => Err(format!("`{name}` must be a list of tables, not of {}", item.noun())),
        },
        Some(other) => Err(format!("`{name}` must be a list of tables, not {}", other.noun())),
    }
}

fn take_messages(value: Data) -> Result<Vec<Message>, String> {
    let Data::List(items) = value else { return Err(format!("`messages` must be a list, not {}", value.noun())) };
    if items.is_empty() {
        return Err("`messages` is empty".into());
    }
    items.into_iter().enumerate().map(|(i, item)| take_message(item).map_err(|error| format!("message {}: {error}", i + 1))).collect()
}

/// All its fields reach the chat template, which knows what they mean.
fn take_message(value: Data) -> Result<Message, String> {
    let Data::Table(fields) = value else { return Err(format!("expected a table, not {}", value.noun())) };
    let noun = |name: &str| fields.iter().find(|(known, _)| known == name).map_or("null", |(_, value)| value.noun());
    let (role, content) = (noun("role"), noun("content"));
    let has_content = fields.iter().any(|(name, _)| name == "content");
    let Some(message) = Message::of(fields) else { return Err(format!("`role` must be a string, not {role}")) };
    let calls = message.get("tool_calls").is_some_and(|calls| *calls != Data::Null);
    let is_spoken = match message.get("content") {
        Some(Data::Text(_)) => true,
        Some(Data::List(parts)) => parts.iter().all(|part| part.get("type").and_then(Data::text) == Some("text")),
        Some(Data::Null) | None => calls,
        Some(_) => false,
    };
    if !is_spoken {
        return Err(match content {
            "a list" => "`content` has a part that is not a text; models that see images or sound are not supported".to_string(),
            _ if !has_content => "`content` is missing".to_string(),
            noun => format!("`content` must be a string or a list of text parts, not {noun}"),
        });
    }
    Ok(message)
}

/// A key that is nearly `completion` is a slip, and would silently lose the labels; any other key is harmless.
fn is_nearly(key: &str, known: &str) -> bool {
    strsim::damerau_levenshtein(&key.to_lowercase(), known) <= 1
}

fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn listed(keys: &BTreeMap<String, Value>) -> String {
    let names: Vec<String> = keys.keys().take(8).map(|key| format!("`{}`", shown(key))).collect();
    if names.is_empty() { "no keys".into() } else { names.join(", ") }
}

/// A JSON object in the order in which it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, Data)>);

impl Fields {
    pub fn get(&self, name: &str) -> Option<&Data> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

impl<'de> serde::Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Fields;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, Data>()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// A line that [`object`] has read, in its own order.
fn fields(bytes: &[u8], number: u64) -> Result<Fields, String> {
    serde_json::from_str(text::decode_line(bytes, number)?).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<Vec<Line>, Failure> {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("data.jsonl");
        std::fs::write(&path, bytes).unwrap();
        let mut lines = Vec::new();
        read_lines(&[path], &mut |line| {
            lines.push(line);
            Ok(())
        })?;
        Ok(lines)
    }

    fn problem(bytes: &[u8]) -> String {
        read_bytes(bytes).unwrap_err().message
    }

    fn written(line: &Line) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, line).unwrap();
        bytes
    }

    #[test]
    fn the_three_shapes_are_read_and_other_keys_kept_aside() {
        let text = "\u{feff}{\"prompt\": \"a\", \"id\": 7}\r\n\n{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\":\"a\",\"completion\":null}\n\
            {\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo\"}]}\n{\"text\":\"t\"}";
        let lines = read_bytes(text.as_bytes()).unwrap();
        let pair = |completion: Option<&str>| Record::Pair { prompt: "a".into(), completion: completion.map(String::from) };
        let records: Vec<Record> = lines.iter().map(|line| line.record.clone()).collect();
        assert_eq!(records[..3], [pair(None), pair(Some("b")), pair(None)]);
        assert_eq!((records[3].prompt(), records[3].completion()), ("hi".to_string(), Some("yo".into())));
        assert_eq!(records[4], Record::Text("t".into()));
        assert_eq!(lines[0].extra["id"], 7);
        assert_eq!(written(&lines[0]), b"{\"prompt\":\"a\",\"id\":7}\n");
    }

    #[test]
    fn each_wrong_line_says_what_was_expected() {
        for (line, expected) in [
            ("{\"prompt\":3}", "`prompt` must be a string, not a number"),
            ("{\"question\":\"a\",\"answer\":\"b\"}", "expected `prompt`, `messages` or `text`, found `answer`, `question`"),
            ("{}", "found no keys"),
            ("[1]", "expected a JSON object, found a list"),
            ("{\"prompt\":\"a\"", "not JSON: EOF while parsing an object at column 13"),
            ("{\"prompt\":\"a\",\"prompt\":\"b\"}", "duplicate key `prompt` at column 22"),
            ("{\"text\":\"a\",\"meta\":{\"x\":[{\"id\":1,\"id\":2}]}}", "duplicate key `id` at column 37"),
            ("{\"messages\":[{\"role\":\"user\",\"role\":\"user\",\"content\":\"\"}]}", "duplicate key `role`"),
            (
                "{\"text\":\"a\",\"id\":18446744073709551616}",
                "an integer beyond 64 bits, which readers would round: write it as a string at column",
            ),
            ("{\"text\":\"a\",\"x\":[1e400]}", "not JSON: number out of range at column"),
            ("{\"text\":\"\\ud83d\"}", "not JSON: unexpected end of hex escape at column"),
            ("{\"text\":\"a\0b\"}", "byte 11 is NUL"),
            ("\u{feff}{\"text\":\"a\"}", "a byte order mark stands inside the file"),
            ("{\"prompt\":\"a\",\"Completions\":\"b\"}", "unknown key `Completions`: did you mean `completion`?"),
            ("{\"prompt\":\"a\",\"text\":\"b\"}", "expected one of `prompt`, `text`, found all of them"),
            ("{\"completion\":\"a\"}", "`completion` belongs to a `prompt`"),
            ("{\"messages\":[]}", "`messages` is empty"),
            ("{\"messages\":[{\"content\":\"\"}]}", "message 1: `role` must be a string, not null"),
            ("{\"messages\":[{\"role\":\"user\"}]}", "message 1: `content` is missing"),
            (
                "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
                "message 1: `content` has a part that is not a text",
            ),
        ] {
            let said = problem(format!("{{\"text\":\"fine\"}}\n{line}").as_bytes());
            assert!(said.contains(":2: ") && said.contains(expected), "{line}: {said}");
        }
        assert!(problem(b"\xFF\xFE").contains(":1: the file is UTF-16 or UTF-32, not UTF-8"));
        assert!(problem(b"{\"text\":\"a\"}\n{\"text\":\"\xFF\"}").contains(":2: byte 10 is not UTF-8"));
        assert!(problem("[".repeat(100_000).as_bytes()).contains(":1: "));
        assert!(problem(format!("{{\"x\":{}", "[".repeat(100_000)).as_bytes()).contains("recursion limit"));
    }

    #[test]
    fn twenty_wrong_lines_are_told_and_no_more() {
        let said = problem("{}\n".repeat(50).as_bytes());
        assert_eq!(said.matches("data.jsonl:").count(), 20, "{said}");
    }

    #[test]
    fn a_line_of_ten_gigabytes_is_refused_without_being_held() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("zeros");
        std::fs::File::create(&path).unwrap().set_len(10 << 30).unwrap();
        let said = read(&[path]).unwrap_err().message;
        assert!(said.contains("zeros:1: the line is longer than 64 MiB"), "{said}");
    }

    #[test]
    fn folders_are_read_in_the_order_of_their_names() {
        let space = tempfile::tempdir().unwrap();
        std::fs::create_dir(space.path().join("b")).unwrap();
        for (name, text) in [("z.jsonl", "3"), ("b/data.jsonl", "2"), ("a.jsonl", "1"), ("dataset.json", "not a record")] {
            std::fs::write(space.path().join(name), format!("{{\"text\":\"{text}\"}}\n")).unwrap();
        }
        let folder = space.path().to_path_buf();
        let records = read(&[folder.clone(), folder.join("a.jsonl")]).unwrap();
        assert_eq!(*records, ["1", "2", "3", "1"].map(|text| Record::Text(text.into())));
        // A text file is one text, whatever is in it.
        std::fs::write(folder.join("b/e.txt"), "one\n{\"two\"").unwrap();
        assert_eq!(*read(&[folder.join("b")]).unwrap(), ["2", "one\n{\"two\""].map(|text| Record::Text(text.into())));
        std::fs::write(folder.join("b/e.txt"), [b'a', 0xff]).unwrap();
        assert!(read(&[folder.join("b")]).unwrap_err().message.contains("e.txt:1: byte 2 is not UTF-8"));
        std::fs::create_dir(folder.join("empty")).unwrap();
        assert!(read(&[folder.join("empty")]).unwrap_err().message.contains("holds no *.jsonl and no *.txt file"));
        assert!(read(&[folder.join("none")]).unwrap_err().message.contains("cannot read"));
    }

    #[test]
    fn texts_are_read_alike_whatever_wrote_them() {
        let space = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = space.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let text = |path: &PathBuf| read(std::slice::from_ref(path));
        let windows = write("a.txt", b"\xEF\xBB\xBFone\r\ntwo\x0cthree\r\n");
        assert_eq!(*text(&windows).unwrap(), [Record::Text("one\ntwo\u{c}three\n".into())]);
        let lines = write("a.jsonl", b"\xEF\xBB\xBF{\"text\":\"a\\r\\n\"}\r\n \t\r\n\xE3\x80\x80\n{\"text\":\"b\xE2\x80\xA8\"}\r\n\r\n");
        assert_eq!(*text(&lines).unwrap(), ["a\r\n", "b\u{2028}"].map(|text| Record::Text(text.into())));
        for (name, bytes, said) in [
            ("b.txt", &b"a\nb\0"[..], "b.txt:2: byte 2 is NUL"),
            ("c.txt", b"\xFF\xFEa\0", "c.txt:1: the file is UTF-16"),
            ("b.jsonl", b"{\0\"\0", "b.jsonl:1: byte 2 is NUL"),
            ("c.jsonl", b"\xFE\xFF\0{", "c.jsonl:1: the file is UTF-16"),
        ] {
            let wrong = text(&write(name, bytes)).unwrap_err().message;
            assert!(wrong.contains(said), "{wrong}");
        }
    }

    #[test]
    fn what_a_folder_holds_besides_data_is_named() {
        let space = tempfile::tempdir().unwrap();
        for name in ["a.JSONL", "b.csv", "c.json", "dataset.json", ".gitattributes"] {
            std::fs::write(space.path().join(name), "{\"text\":\"x\"}\n").unwrap();
        }
        let found = folder(space.path()).unwrap();
        assert_eq!(found.data, [space.path().join("a.JSONL")]);
        assert_eq!(not_read(&found.skipped), "3 files are not read: `.gitattributes`, `b.csv`, `c.json`");
        std::fs::remove_file(space.path().join("a.JSONL")).unwrap();
        let nothing = read(&[space.path().to_path_buf()]).unwrap_err().message;
        assert!(
            nothing.ends_with("holds no *.jsonl and no *.txt file; 3 files are not read: `.gitattributes`, `b.csv`, `c.json`"),
            "{nothing}"
        );
        let many: Vec<PathBuf> = (0..12).map(|n| PathBuf::from(format!("{n}\n.csv"))).collect();
        assert!(not_read(&many).starts_with("12 files are not read: `0\\n.csv`, "), "{}", not_read(&many));
    }

    #[test]
    fn objects_may_have_any_keys() {
        let space = tempfile::tempdir().unwrap();
        let path = space.path().join("questions.jsonl");
        std::fs::write(&path, "\u{feff}{\"question\": \"a\", \"answer\": 1}\n\n{\"x\": [1, {\"y\": null}]}\n").unwrap();
        let objects = read_objects(std::slice::from_ref(&path)).unwrap();
        assert_eq!((objects.len(), objects[0].get("answer")), (2, Some(&Data::Int(1))));
        assert_eq!(objects[1].get("x").unwrap().sorted(), serde_json::json!([1, {"y": null}]));
        std::fs::write(&path, "{}\n[1]\n{\"a\":1,\"a\":2}\n").unwrap();
        std::fs::write(space.path().join("a.txt"), "a text").unwrap();
        let wrong = read_objects(&[space.path().to_path_buf()]).unwrap_err();
        for said in
            ["a.txt: a text", "questions.jsonl:2: expected a JSON object, found a list", ":3: duplicate key `a`", "3 lines are wrong"]
        {
            assert!(wrong.message.contains(said), "{said}: {wrong}");
        }
    }

    fn any_line() -> impl Strategy<Value = Line> {
        let text = any::<String>();
        let message = (prop::sample::select(vec!["system", "user", "assistant", "tool"]), any::<String>())
            .prop_map(|(role, content)| Message::new(role, &content));
        let record = prop_oneof![
            (text, any::<Option<String>>()).prop_map(|(prompt, completion)| Record::Pair { prompt, completion }),
            prop::collection::vec(message, 1..4).prop_map(|messages| Record::Messages(Conversation::of(messages))),
            any::<String>().prop_map(Record::Text),
        ];
        let extra = prop::collection::btree_map("x_[a-z]{0,6}", any::<i64>().prop_map(Value::from), 0..3);
        (record, extra).prop_map(|(record, extra)| Line { record, extra })
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back(lines in prop::collection::vec(any_line(), 0..8)) {
            let bytes = lines.iter().map(written).collect::<Vec<_>>().concat();
            prop_assert_eq!(read_bytes(&bytes).unwrap(), lines);
        }

        #[test]
        fn mangled_bytes_never_panic(line in any_line(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let mut bytes = written(&line);
            let (at, cut) = (at.index(bytes.len()), cut.index(bytes.len()));
            bytes[at] = byte;
            let _ = read_bytes(&bytes);
            let _ = read_bytes(&bytes[..cut]);
            let _ = read_bytes(&[byte; 40]);
        }
    }
}
