//! Divides a script into functions.

use super::{
    lexer::{ScriptLexer, ScriptToken},
    page::is_user_event,
    place::{
        BracketKind, EarlierToken, FunctionPlace, LISTENERS, NO_CALLEES, OpenBracket,
        RUN_PROPERTIES, STARTERS, runs_by_itself,
    },
    program::{GLOBAL, PageProgram},
    writer::CodeWriter,
};

/// Maximum number of brackets in each other.
const MAX_OPEN: usize = 100_000;

/// Reads one script.
pub(super) struct ScriptParser<'a, 'p> {
    lexer: ScriptLexer<'a>,
    program: &'p mut PageProgram<'a>,
    /// The last three tokens, the last one first.
    earlier: [EarlierToken<'a>; 3],
    open: Vec<OpenBracket<'a>>,
    /// The last closed bracket, and the possible parameters in it.
    closed: Option<OpenBracket<'a>>,
    parameters: Vec<&'a [u8]>,
    /// Possible parameters in open brackets.
    names: Vec<&'a [u8]>,
    /// Number of open brackets around a list of variables.
    variables: Option<usize>,
    /// The functions around the current position.
    functions: Vec<usize>,
    /// Place of the last word, for the parameter of an arrow.
    word_place: FunctionPlace<'a>,
    /// Function whose name or parameters follow, and its place.
    pending: Option<(usize, FunctionPlace<'a>)>,
    /// Function whose body follows.
    expected: Option<(usize, FunctionPlace<'a>)>,
    /// Function expression that has just ended.
    ended: Option<usize>,
    writer: CodeWriter,
}

impl<'a, 'p> ScriptParser<'a, 'p> {
    pub(super) fn new(script: &'a [u8], program: &'p mut PageProgram<'a>) -> Self {
        Self {
            lexer: ScriptLexer::new(script),
            program,
            earlier: [EarlierToken::None; 3],
            open: Vec::new(),
            closed: None,
            parameters: Vec::new(),
            names: Vec::new(),
            variables: None,
            functions: Vec::new(),
            word_place: FunctionPlace::Statement,
            pending: None,
            expected: None,
            ended: None,
            writer: CodeWriter::default(),
        }
    }

    pub(super) fn run(mut self) {
        while let Some(token) = self.lexer.next() {
            if self.open.len() > MAX_OPEN {
                self.program.limit();
                break;
            }
            let earlier = match &token {
                ScriptToken::Word(word) => {
                    // Says nothing about where a function is.
                    if *word == b"async" {
                        continue;
                    }
                    self.word(word);
                    EarlierToken::Word(word)
                }
                ScriptToken::Text(text) => {
                    self.begin_expression_body();
                    self.text(text);
                    EarlierToken::Value
                }
                ScriptToken::Number(_) => {
                    self.begin_expression_body();
                    EarlierToken::Value
                }
                ScriptToken::Arrow => {
                    self.arrow();
                    EarlierToken::Arrow
                }
                ScriptToken::Symbol(symbol) => {
                    self.symbol(*symbol);
                    EarlierToken::Symbol(*symbol)
                }
            };
            let is_continued = self.earlier[0] == EarlierToken::Symbol(b'+');
            let current = self.current();
            if let Some(code) = self.program.code(current) {
                self.writer.write(&token, is_continued, code);
            }
            self.earlier = [earlier, self.earlier[0], self.earlier[1]];
        }
        if let Some(code) = self.program.code(GLOBAL) {
            code.extend(b"\n;");
        }
    }

    fn current(&self) -> usize {
        self.functions.last().copied().unwrap_or(GLOBAL)
    }

    /// Returns the place of a function that begins at the current position.
    fn place(&self) -> FunctionPlace<'a> {
        let argument = || match self.open.last().map(|bracket| bracket.kind) {
            Some(BracketKind::Call { is_after_click: true, .. }) => FunctionPlace::ClickArgument,
            Some(BracketKind::Call { .. }) => FunctionPlace::Argument,
            _ => FunctionPlace::Other,
        };
        let group = || match self.open.last() {
            // Parentheses around the function alone.
            Some(OpenBracket { symbol: b'(', kind: BracketKind::Other, place, .. })
                if *place != FunctionPlace::Statement =>
            {
                *place
            }
            _ => argument(),
        };
        match self.earlier {
            [EarlierToken::None | EarlierToken::Symbol(b'{' | b'}' | b';'), ..] => {
                FunctionPlace::Statement
            }
            [EarlierToken::Symbol(b'('), ..] => group(),
            [EarlierToken::Symbol(b','), ..] => argument(),
            [EarlierToken::Symbol(b'='), EarlierToken::Word(name), before] => {
                FunctionPlace::Assigned { name, is_property: before == EarlierToken::Symbol(b'.') }
            }
            [EarlierToken::Symbol(b':'), EarlierToken::Word(name), _] => {
                FunctionPlace::Property(name)
            }
            [EarlierToken::Symbol(b')'), ..] => FunctionPlace::Statement,
            _ => FunctionPlace::Other,
        }
    }

    fn word(&mut self, word: &'a [u8]) {
        let is_member = self.earlier[0] == EarlierToken::Symbol(b'.');
        if is_member
            && matches!(word, b"call" | b"apply")
            && let Some(function) = self.ended
        {
            self.program.start(function);
        }
        self.ended = None;
        self.begin_expression_body();
        if let Some((function, place)) = self.pending {
            if place == FunctionPlace::Statement {
                self.program.declare(self.current(), word, Some(function));
            }
            self.program.declare(function, word, Some(function));
            return;
        }
        if word == b"function" && !is_member {
            let place = self.place();
            self.pending = Some((self.begin_function(place), place));
            return;
        }
        self.word_place = self.place();
        self.declare(word);
        if let [EarlierToken::Symbol(b'='), EarlierToken::Word(name), _] = self.earlier
            && runs_by_itself(name)
        {
            // The function that handles an event.
            self.program.call(self.current(), word);
        }
    }

    /// Declares a variable or parameter.
    fn declare(&mut self, word: &'a [u8]) {
        let bracket = self.open.last();
        let is_item = matches!(self.earlier[0], EarlierToken::Symbol(b'(' | b',' | b'.'));
        match bracket.map(|bracket| bracket.kind) {
            Some(BracketKind::Parameters(function)) if is_item => {
                self.program.declare(function, word, None);
            }
            Some(BracketKind::Pattern(function)) => self.program.declare(function, word, None),
            _ => {}
        }
        if is_item && bracket.is_some_and(|bracket| bracket.symbol == b'(') {
            self.names.push(word);
        }
        let is_first =
            matches!(self.earlier[0], EarlierToken::Word(b"var" | b"let" | b"const" | b"class"));
        let is_next = self.earlier[0] == EarlierToken::Symbol(b',')
            && self.variables == Some(self.open.len());
        if is_first || is_next {
            self.program.declare(self.current(), word, None);
        }
        if matches!(word, b"var" | b"let" | b"const") {
            self.variables = Some(self.open.len());
        }
    }

    /// Notes the event that a function is registered for.
    fn text(&mut self, text: &[u8]) {
        self.ended = None;
        let is_first = self.earlier[0] == EarlierToken::Symbol(b'(');
        if let Some(OpenBracket { kind: BracketKind::Call { callee, is_after_click, .. }, .. }) =
            self.open.last_mut()
            && is_first
            && LISTENERS.binary_search(callee).is_ok()
        {
            *is_after_click =
                is_user_event(text) || text.strip_prefix(b"on").is_some_and(is_user_event);
        }
    }

    /// Adds a function. Its place determines whether it runs with the current function.
    fn begin_function(&mut self, place: FunctionPlace<'a>) -> usize {
        let current = self.current();
        let function = self.program.add(current);
        match place {
            FunctionPlace::Argument => self.program.start(function),
            FunctionPlace::Assigned { name, .. } | FunctionPlace::Property(name)
                if runs_by_itself(name) || RUN_PROPERTIES.binary_search(&name).is_ok() =>
            {
                self.program.start(function);
            }
            FunctionPlace::Assigned { name, is_property: false } => {
                self.program.declare(current, name, Some(function));
            }
            FunctionPlace::Assigned { name, is_property: true } | FunctionPlace::Property(name) => {
                self.program.add_method(name, function);
            }
            FunctionPlace::Statement | FunctionPlace::ClickArgument | FunctionPlace::Other => {}
        }
        function
    }

    fn arrow(&mut self) {
        let place = match (self.earlier[0], self.closed) {
            (EarlierToken::Symbol(b')'), Some(parameters)) => {
                if let BracketKind::Call { callee, is_method: false, .. } = parameters.kind {
                    // `async (…) =>`
                    self.program.take_back_call(self.current(), callee);
                }
                parameters.place
            }
            _ => self.word_place,
        };
        let function = self.begin_function(place);
        match self.earlier[0] {
            EarlierToken::Word(parameter) => self.program.declare(function, parameter, None),
            _ => self.declare_parameters(function),
        }
        self.expected = Some((function, FunctionPlace::Other));
    }

    /// Declares the names in the last parentheses.
    fn declare_parameters(&mut self, function: usize) {
        for parameter in std::mem::take(&mut self.parameters) {
            self.program.declare(function, parameter, None);
        }
    }

    /// Begins the expression behind an arrow, unless a body in braces follows.
    fn begin_expression_body(&mut self) {
        if self.earlier[0] == EarlierToken::Arrow
            && let Some((function, _)) = self.expected.take()
        {
            let kind = BracketKind::ExpressionBody(function);
            self.open_bracket(0, kind, FunctionPlace::Other);
            self.functions.push(function);
        }
    }

    fn symbol(&mut self, symbol: u8) {
        if symbol != b'{' {
            self.begin_expression_body();
        }
        match symbol {
            b'(' => self.open_parenthesis(),
            b'[' => self.push(symbol, self.pattern()),
            b'{' => self.open_brace(),
            b')' | b']' | b'}' => self.close(symbol),
            b',' | b';' => {
                if symbol == b';' && self.variables == Some(self.open.len()) {
                    self.variables = None;
                }
                self.pass_function();
                self.end_expression_bodies();
                self.ended = None;
            }
            b'.' => {}
            _ => self.ended = None,
        }
    }

    fn push(&mut self, symbol: u8, kind: BracketKind<'a>) {
        let place = self.place();
        self.open_bracket(symbol, kind, place);
    }

    fn open_bracket(&mut self, symbol: u8, kind: BracketKind<'a>, place: FunctionPlace<'a>) {
        self.ended = None;
        self.open.push(OpenBracket { symbol, kind, place, names: self.names.len() });
    }

    /// Returns the kind of a bracket that may begin a pattern with names.
    fn pattern(&self) -> BracketKind<'a> {
        match (self.earlier[0], self.open.last().map(|bracket| bracket.kind)) {
            (EarlierToken::Word(b"var" | b"let" | b"const"), _) => {
                BracketKind::Pattern(self.current())
            }
            (_, Some(BracketKind::Parameters(function) | BracketKind::Pattern(function))) => {
                BracketKind::Pattern(function)
            }
            _ => BracketKind::Other,
        }
    }

    fn open_parenthesis(&mut self) {
        if let Some((function, place)) = self.pending.take() {
            self.open_bracket(b'(', BracketKind::Parameters(function), place);
            return;
        }
        if let Some(function) = self.ended {
            self.program.start(function);
        }
        let kind = match self.earlier {
            [EarlierToken::Word(callee), before, _]
                if NO_CALLEES.binary_search(&callee).is_err() =>
            {
                let is_method = before == EarlierToken::Symbol(b'.');
                if is_method {
                    self.program.call_method(self.current(), callee);
                } else {
                    self.program.call(self.current(), callee);
                }
                let is_after_click = is_method && is_user_event(callee);
                BracketKind::Call { callee, is_method, is_after_click }
            }
            [EarlierToken::Symbol(b')' | b']' | b'}'), ..] => {
                BracketKind::Call { callee: &[], is_method: true, is_after_click: false }
            }
            _ => BracketKind::Other,
        };
        // The place of a call is that of its callee.
        let place = if matches!(self.earlier[0], EarlierToken::Word(_)) {
            self.word_place
        } else {
            self.place()
        };
        self.open_bracket(b'(', kind, place);
    }

    fn open_brace(&mut self) {
        let kind = match (self.expected.take(), self.earlier[0], self.closed) {
            (Some((function, place)), ..) => {
                BracketKind::Body { function, is_declaration: place == FunctionPlace::Statement }
            }
            (
                None,
                EarlierToken::Symbol(b')'),
                Some(OpenBracket {
                    kind: BracketKind::Call { callee, is_method: false, .. }, ..
                }),
            ) => {
                // The name and parameters of a method.
                self.program.take_back_call(self.current(), callee);
                let function = self.begin_function(FunctionPlace::Property(callee));
                self.declare_parameters(function);
                BracketKind::Body { function, is_declaration: true }
            }
            _ => self.pattern(),
        };
        self.push(b'{', kind);
        if let BracketKind::Body { function, .. } = kind {
            self.functions.push(function);
        }
    }

    fn close(&mut self, symbol: u8) {
        self.pass_function();
        self.end_expression_bodies();
        let opening = match symbol {
            b')' => b'(',
            b']' => b'[',
            _ => b'{',
        };
        let Some(bracket) = self.open.pop_if(|bracket| bracket.symbol == opening) else {
            self.ended = None;
            return;
        };
        match bracket.kind {
            BracketKind::Body { function, is_declaration } => {
                self.functions.pop();
                self.ended = Some(function).filter(|_| !is_declaration);
            }
            BracketKind::Parameters(function) => self.expected = Some((function, bracket.place)),
            // A function in parentheses may be called behind them.
            BracketKind::Other if symbol == b')' => {}
            _ => self.ended = None,
        }
        self.parameters = self.names.split_off(bracket.names.min(self.names.len()));
        if self.variables.is_some_and(|level| level > self.open.len()) {
            self.variables = None;
        }
        self.closed = Some(bracket);
    }

    fn end_expression_bodies(&mut self) {
        while let Some(OpenBracket { kind: BracketKind::ExpressionBody(function), .. }) =
            self.open.pop_if(|bracket| bracket.symbol == 0)
        {
            self.functions.pop();
            self.ended = Some(function);
        }
    }

    /// Calls a function that is passed by its name.
    fn pass_function(&mut self) {
        let [EarlierToken::Word(name), EarlierToken::Symbol(b'(' | b','), _] = self.earlier else {
            return;
        };
        if let Some(OpenBracket {
            kind: BracketKind::Call { callee, is_after_click: false, .. },
            ..
        }) = self.open.last()
            && (STARTERS.binary_search(callee).is_ok() || LISTENERS.binary_search(callee).is_ok())
        {
            self.program.call(self.current(), name);
        }
    }
}
