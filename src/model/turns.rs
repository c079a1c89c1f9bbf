//! Where the answers are in the text of a conversation whose template rewrites the past: Qwen 3 leaves out what was thought before the last question, Phi-3 ends the whole with a token of
//! its own. Each message's place is found by rendering the conversation with another text in the message's stead.

use std::ops::Range;

use super::ModelError;
use super::chat::{Conversation, Ending, Message};
use super::example::{Encoder, Piece};
use super::jinja::MARKS;

pub struct Turns<'a> {
    pub encoder: &'a Encoder<'a>,
    pub chat: &'a Conversation,
    /// What closes an assistant's turn.
    pub end: Option<String>,
}

impl Turns<'_> {
    /// The whole text, cut where answers begin.
    pub fn pieces(&self) -> Result<Vec<Piece>, ModelError> {
        let whole = self.render(self.chat, Ending::Complete)?;
        let answers = match self.answers(&whole) {
            Ok(answers) => answers,
            Err(error) => self.marked(&whole)?.ok_or(error)?,
        };
        let (mut pieces, mut at, mut scored) = (Vec::new(), 0, 0);
        for answer in &answers {
            let text = whole.get(at..answer.start).ok_or_else(|| hidden("answers overlap"))?;
            if !text.is_empty() {
                pieces.push(Piece { text: text.to_string(), scored });
            }
            (at, scored) = (answer.start, answer.len());
        }
        let text = whole.get(at..).ok_or_else(|| hidden("answers overlap"))?;
        if !text.is_empty() {
            pieces.push(Piece { text: text.to_string(), scored });
        }
        Ok(pieces)
    }

    fn render(&self, chat: &Conversation, ending: Ending) -> Result<String, ModelError> {
        self.encoder.chat.render(chat, ending, self.encoder.tokenizer)
    }

    fn answers(&self, whole: &str) -> Result<Vec<Range<usize>>, ModelError> {
        let mut answers: Vec<Range<usize>> = Vec::new();
        for (place, message) in self.chat.messages.iter().enumerate() {
            if message.is_assistant() {
                let answer = self.answer(whole, place)?;
                if answers.last().is_some_and(|last| last.end > answer.start) {
                    return Err(hidden("an answer does not come behind the one before it"));
                }
                answers.push(answer);
            }
        }
        Ok(answers)
    }

    /// From where the prompt ends to the token that closes the answer.
    fn answer(&self, whole: &str, place: usize) -> Result<Range<usize>, ModelError> {
        let shown = self.shown(self.chat, whole, place, Ending::Complete)?;
        let shown = shown.ok_or_else(|| hidden(&format!("answer {} is not in its text", place + 1)))?;
        let start = self.start(whole, place, &shown)?;
        let behind = whole.get(shown.end..).unwrap_or_default();
        let closes = self.encoder.tokenizer.special_starts(behind.trim_start());
        let own = whole.get(shown.clone()).unwrap_or_default().trim_end();
        let ends = |text: &str| self.end.as_deref().is_some_and(|end| text.starts_with(end));
        let end = match (closes, own) {
            // It has closed itself, as calls of tools do that end in another token.
            (_, own) if self.encoder.tokenizer.special_ends(own).is_some() && !ends(behind.trim_start()) => shown.start + own.len(),
            (Some(length), _) => shown.end + behind.len() - behind.trim_start().len() + length,
            (None, _) => shown.end,
        };
        Ok(start..end)
    }

    /// The prompt's end: as far as the text behind the last message before is that of the prompt alone.
    fn start(&self, whole: &str, place: usize, shown: &Range<usize>) -> Result<usize, ModelError> {
        if place == 0 {
            return Ok(shown.start);
        }
        let question = self.chat.first(place);
        let Ok(prompt) = self.render(&question, Ending::AwaitsAnswer) else { return Ok(shown.start) };
        for before in (0..place).rev() {
            let here = self.shown(self.chat, whole, before, Ending::Complete)?;
            let there = self.shown(&question, &prompt, before, Ending::AwaitsAnswer)?;
            let (Some(here), Some(there)) = (here, there) else { continue };
            if here.end > shown.start {
                continue;
            }
            let (text, alone) = (whole.get(here.end..shown.start).unwrap_or_default(), prompt.get(there.end..).unwrap_or_default());
            return Ok(here.end + common_start(text, alone));
        }
        Ok(shown.start)
    }

    /// Where a message's content stands, found by putting one letter in its place. None if the text has nothing of it.
    fn shown(&self, chat: &Conversation, text: &str, place: usize, ending: Ending) -> Result<Option<Range<usize>>, ModelError> {
        let letter =
            ('\u{e000}'..='\u{f8ff}').find(|letter| !text.contains(*letter)).ok_or_else(|| hidden("it uses all private letters"))?;
        let mut other = chat.clone();
        let Some(message) = other.messages.get_mut(place) else { return Ok(None) };
        let content = letter.to_string();
        *message = if message.is_assistant() { message.saying(&content) } else { Message::new(message.role(), &content) };
        // Where the others need it, it keeps all but its content.
        let other = match self.render(&other, ending) {
            Ok(other) => other,
            Err(_) => self.render(&with_content(chat, place, &content), ending)?,
        };
        let mut parts = other.split(letter);
        let (before, behind) = match (parts.next(), parts.next(), parts.next()) {
            (Some(before), Some(behind), None) => (before, behind),
            (_, None, _) => return Ok(None),
            _ => return Err(hidden(&format!("it writes message {} more than once", place + 1))),
        };
        let start = common_start(text, before);
        let end = text.len() - common_end(text, behind);
        match start <= end {
            true => Ok(Some(start..end)),
            false => Err(hidden(&format!("message {} cannot be told from what is around it", place + 1))),
        }
    }

    /// What the template itself marks as an assistant's, if it marks each answer once.
    fn marked(&self, whole: &str) -> Result<Option<Vec<Range<usize>>>, ModelError> {
        let Some(marked) = self.encoder.chat.render_marked(self.chat, self.encoder.tokenizer)? else { return Ok(None) };
        let (mut answers, mut at) = (Vec::new(), 0);
        for part in marked.split(MARKS[0]).skip(1) {
            let Some((answer, _)) = part.split_once(MARKS[1]) else { return Ok(None) };
            let Some(found) = whole.get(at..).and_then(|rest| rest.find(answer)) else { return Ok(None) };
            let start = at + found;
            at = start + answer.len();
            answers.push(start..start + self.encoder.closing(answer, self.end.as_deref()));
        }
        let count = self.chat.messages.iter().filter(|message| message.is_assistant()).count();
        Ok((answers.len() == count).then_some(answers))
    }
}

fn hidden(why: &str) -> ModelError {
    ModelError::unsupported("this chat template", format!("answers cannot be told from questions: {why}"))
}

fn with_content(chat: &Conversation, place: usize, content: &str) -> Conversation {
    let mut other = chat.clone();
    if let Some(message) = other.messages.get_mut(place) {
        let mut fields = message.fields().to_vec();
        match fields.iter_mut().find(|(name, _)| name == "content") {
            Some(field) => field.1 = content.into(),
            None => fields.push(("content".to_string(), content.into())),
        }
        *message = Message::of(fields).unwrap_or_else(|| message.clone());
    }
    other
}

/// Bytes that two texts begin with.
fn common_start(a: &str, b: &str) -> usize {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    a.floor_char_boundary(same)
}

/// Bytes that two texts end with.
fn common_end(a: &str, b: &str) -> usize {
    let same = a.bytes().rev().zip(b.bytes().rev()).take_while(|(a, b)| a == b).count();
    a.len() - a.ceil_char_boundary(a.len() - same)
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
