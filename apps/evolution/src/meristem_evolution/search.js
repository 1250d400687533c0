// Search in the tokens of all contexts, across their borders, without any text being built.
//
// Every word of the vocabulary is looked at once per query: does it hold the query, or does it end
// with the query's beginning? A context is then a walk over two flags, and only where a word ends
// with the beginning of the query are the next words compared.

const HOLDS = 1;
const BEGINS = 2;

// Returns a function that tells whether a feature's contexts hold the query. Letters of ASCII are
// found in either case.
function textMatcher(book, query) {
  const wanted = asBytes(query);
  const words = lowerWords(book);
  const { flags, begun } = flagWords(words, wanted);
  const advance = advances(words, wanted);
  const { tokens, width } = book;
  const size = book.contexts * width;

  function goesOn(place, end) {
    for (const length of begun[tokens[place]]) {
      let found = length;
      for (let next = place + 1; next < end && found; next += 1) {
        found = advance(found)[tokens[next]];
        if (found === wanted.length) return true;
      }
    }
    return false;
  }

  return (feature) => {
    const start = feature * size;
    for (let place = start; place < start + size; place += 1) {
      const flag = flags[tokens[place]];
      if (flag === 0) continue;
      if (flag === HOLDS) return true;
      const end = start + (Math.floor((place - start) / width) + 1) * width;
      if (goesOn(place, end)) return true;
    }
    return false;
  };
}

// The flag of each word, and with which lengths of the query's beginning a word ends.
function flagWords(words, wanted) {
  const flags = new Uint8Array(words.length);
  const begun = new Array(words.length);
  words.forEach((word, token) => {
    if (word.includes(wanted)) {
      flags[token] = HOLDS;
      return;
    }
    const lengths = [];
    for (let at = word.indexOf(wanted[0]); at >= 0; at = word.indexOf(wanted[0], at + 1)) {
      if (wanted.startsWith(word.slice(at))) lengths.push(word.length - at);
    }
    if (!lengths.length) return;
    flags[token] = BEGINS;
    begun[token] = lengths;
  });
  return { flags, begun };
}

// How far a word brings the query when `found` of its bytes are found; 0 where it does not fit.
function advances(words, wanted) {
  const tables = [];
  return (found) => {
    if (tables[found]) return tables[found];
    const rest = wanted.slice(found);
    tables[found] = Uint16Array.from(words, (word) => {
      if (word.startsWith(rest)) return wanted.length;
      return rest.startsWith(word) ? found + word.length : 0;
    });
    return tables[found];
  };
}

// One character per byte, so that words which cut a character in two can be compared.
function asBytes(text) {
  const bytes = new TextEncoder().encode(text);
  return folded(String.fromCharCode(...bytes));
}

// Letters of ASCII in one case, and any white space as one blank, since a query holds no line end.
function folded(bytes) {
  return bytes.replace(/[A-Z]/g, (letter) => letter.toLowerCase()).replace(/[\t\n\r]/g, " ");
}

function lowerWords(book) {
  if (book.lower) return book.lower;
  book.lower = new Array(book.vocabulary + 1).fill("");
  for (let token = 0; token < book.vocabulary; token += 1) {
    book.lower[token] = folded(String.fromCharCode(...wordBytes(book, token)));
  }
  return book.lower;
}

// The first context that holds the query, as the text before it, it, and the text after it; null
// if none does.
function textAround(book, feature, query) {
  const wanted = folded(query);
  for (let number = 0; wanted && number < book.contexts; number += 1) {
    const text = readContext(book, feature, number).map((piece) => piece.text).join("");
    const at = folded(text).indexOf(wanted);
    const end = at + wanted.length;
    if (at >= 0) return [text.slice(0, at), text.slice(at, end), text.slice(end)];
  }
  return null;
}

// Which features fit a query. A query that continues the last one looks at its finds only.
function makeSearch(book) {
  let last = { query: "", hits: new Uint8Array(book.features).fill(1) };
  const all = last;
  return (query) => {
    if (query === last.query) return last.hits;
    if (!query) return (last = all).hits;
    const before = last.query && query.startsWith(last.query) && !/^#?\d/.test(query) ? last : all;
    const hits = new Uint8Array(book.features);
    const id = /^#?(\d+)$/.exec(query);
    if (id && Number(id[1]) < book.features) hits[Number(id[1])] = 1;
    if (!query.startsWith("#") || !id) {
      const fits = textMatcher(book, query);
      for (let feature = 0; feature < book.features; feature += 1) {
        if (before.hits[feature] && fits(feature)) hits[feature] = 1;
      }
    }
    last = { query, hits };
    return hits;
  };
}
