// The book: all features as typed arrays, unpacked from the page itself.

async function readBook() {
  const book = JSON.parse(document.getElementById("header").textContent);
  const packed = document.getElementById("packed");
  const stream = new Blob([fromBase64(packed.textContent)])
    .stream()
    .pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  packed.remove();
  for (const [name, [type, offset, length]] of Object.entries(book.arrays)) {
    book[name] = new globalThis[`${type}Array`](buffer, offset, length);
  }
  book.snapshots = book.steps.length;
  book.vocabulary = book.ends.length;
  return book;
}

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let place = 0; place < binary.length; place += 1) bytes[place] = binary.charCodeAt(place);
  return bytes;
}

// The bytes of a token; none for the filler of a short context.
function wordBytes(book, token) {
  if (token >= book.vocabulary) return book.words.subarray(0, 0);
  return book.words.subarray(token ? book.ends[token - 1] : 0, book.ends[token]);
}

// A context as pieces of text with their pre-activation. Tokens that share a character are one
// piece, whose activation is the largest of theirs.
function readContext(book, feature, number) {
  const start = (feature * book.contexts + number) * book.width;
  const unit = book.scale[feature] / 255;
  const decoder = new TextDecoder();
  const pieces = [];
  let waiting = 0;
  for (let place = start; place < start + book.width; place += 1) {
    const token = book.tokens[place];
    if (token >= book.vocabulary) continue;
    const text = decoder.decode(wordBytes(book, token), { stream: true });
    waiting = Math.max(waiting, book.strength[place] * unit);
    if (!text) continue;
    pieces.push({ text, activation: waiting });
    waiting = 0;
  }
  const rest = decoder.decode();
  if (rest) pieces.push({ text: rest, activation: waiting });
  return pieces;
}

// What the feature does at a snapshot with a pre-activation: its gate opens above the threshold.
function gated(book, feature, snapshot, activation) {
  const place = feature * book.snapshots + snapshot;
  const strength = activation * book.norms[place];
  return strength > book.threshold[place] ? strength : 0;
}

// The cosine of a feature's directions at two snapshots, from the upper triangle.
function cosine(book, feature, first, second) {
  if (first === second) return 1;
  const [a, b] = first < second ? [first, second] : [second, first];
  const S = book.snapshots;
  const inside = a * S - (a * (a + 1)) / 2 + (b - a - 1);
  return book.cosines[(feature * S * (S - 1)) / 2 + inside] / 127;
}

function stepText(book, snapshot) {
  return snapshot < 0 ? "–" : book.steps[snapshot].toLocaleString("en");
}

function numberText(value) {
  if (Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && size < 0.001) return value.toExponential(1).replace("e-", "e−");
  const text = Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 4 });
  return text.replace("-", "−");
}
