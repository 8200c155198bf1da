// Two languages: every element with a `data-word` says its word in the one that
// is chosen, and the glossary's sentences when it is pointed at.
let known = { words: {}, glossary: {} };
let language = "network";

// Between visits, where the browser allows it.
function remembered(name, value) {
  try {
    if (value) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export async function load(listener) {
  known = await (await fetch("words.json")).json();
  if (remembered("language") === "probability") language = "probability";
  for (const input of document.querySelectorAll("[name=language]")) {
    input.checked = input.value === language;
    input.addEventListener("change", () => {
      language = input.value;
      remembered("language", language);
      translate();
      listener();
    });
  }
  const list = document.getElementById("glossary");
  for (const [term, both] of Object.entries(known.glossary)) {
    list.append(Object.assign(document.createElement("dt"), { textContent: term }));
    for (const [name, words] of [["neural networks", both.network], ["probability", both.probability]]) {
      list.append(Object.assign(document.createElement("dd"), { textContent: `${name}: ${words}` }));
    }
  }
  translate();
}

export const isProbability = () => language === "probability";

export function translate(root = document) {
  for (const element of root.querySelectorAll("[data-word]")) {
    const word = known.words[element.dataset.word];
    element.textContent = word[language];
    const both = known.glossary[word.term];
    element.title = `${word.term}. Neural networks: ${both.network}. Probability: ${both.probability}.`;
  }
}

export function spoken(key) {
  const element = document.createElement("span");
  element.dataset.word = key;
  return element;
}

export const said = (key) => known.words[key][language];
