#!/usr/bin/env python3
# usage: python3 scripts/lib/texts.py [FILE.md …]    Holds the texts against their bounds, and what they name against the tree.
import re, subprocess, sys
from os.path import dirname, exists, normpath, join

COLUMNS, SENTENCE, AVERAGE, PARAGRAPH = 100, 25, 18, 80  # the last three in words

tree = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], text=True).splitlines()
tree = [path for path in tree if exists(path)]
folders = {"/" + folder for path in tree for folder in [dirname(path)[: end.start()] for end in re.finditer("/|$", dirname(path))]}
names = {"/" + path for path in tree} | folders
words = set(subprocess.check_output(["git", "grep", "-ohwIE", "[A-Za-z_]\\w*", "--", ":!*.md", ":!*vendor*"], text=True).split())
PATH = re.compile(r"^[\w.@{},/-]+\.(?:rs|md|py|toml|conf|yml|proto|css|js|sh|service)$|^(?:[\w{},-]+/)+$"
                  r"|^(?:scripts|server|client-sim|monitor|proto|sysctl)/[\w.@/{},-]+$")
complaints = []

def expand(path):
    inner = re.search(r"\{([^}]*)\}", path)
    return [one for part in inner[1].split(",") for one in expand(path.replace(inner[0], part.strip(), 1))] if inner else [path]

def check_names(file, number, text):
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    for link in filter(None, links):
        if not exists(normpath(join(dirname(file), link))):
            complaints.append(f"{file}:{number}: the link {link} leads nowhere")
    for code in re.findall(r"`([^`]+)`", text):
        for path in expand(code) if PATH.match(code) and not code.startswith("/") else []:
            near = "/" + normpath(join(dirname(file), path))
            if near not in names and not any(name.endswith("/" + path.rstrip("/")) for name in names):
                complaints.append(f"{file}:{number}: there is no {path}")
        for name in re.findall(r"[A-Za-z_]\w*", code) if re.match(r"^[A-Z]\w*(::\w+)*$|^[a-z_]\w*(::\w+)+$", code) else []:
            if name not in words and not re.match(r"^[A-Z0-9]+$", name):
                complaints.append(f"{file}:{number}: no source knows {name}")

def prose(lines):
    """Paragraphs as (line number, text): headings, tables, code, and comments of HTML are none."""
    paragraph, first, code = [], 0, False
    for number, line in enumerate(lines + [""], 1):
        text = line.strip()
        fence = text.startswith("```")
        code ^= fence
        outside = fence or code or not text or re.match(r"[|#]|<!--|!\[", text)
        if paragraph and (outside or re.match(r"([-*]|\d+\.) ", text)):
            yield first, " ".join(paragraph)
            paragraph = []
        if not outside:
            first = first if paragraph else number
            paragraph.append(re.sub(r"^([-*]|\d+\.) ", "", text))

def check(file):
    lines = open(file).read().splitlines()
    code, count, sentences = False, 0, 0
    for number, line in enumerate(lines, 1):
        code ^= line.startswith("```")
        link = re.fullmatch(r"\W*!?\[[^]]*\]\([^)]*\)\W*|\W*<?https?://\S+\W*", line)
        if len(line) > COLUMNS and not code and not line.startswith("|") and not link:
            complaints.append(f"{file}:{number}: {len(line)} columns, {len(line) - COLUMNS} too many")
        if not code:
            check_names(file, number, line)
    for number, text in prose(lines):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", text))
        in_paragraph = 0
        for sentence in re.split(r"(?<=[.!?])[*_)\"”]*\s+(?=\W*[A-Z0-9]|code)", text):
            length = len(re.findall(r"[^\W_]+(?:[-'’.,][^\W_]+)*", sentence))
            in_paragraph, sentences = in_paragraph + length, sentences + 1
            if length > SENTENCE:
                complaints.append(f"{file}:{number}: a sentence of {length} words, {length - SENTENCE} too many: {sentence[:40]}…")
        if in_paragraph > PARAGRAPH:
            complaints.append(f"{file}:{number}: a paragraph of {in_paragraph} words, {in_paragraph - PARAGRAPH} too many")
        count += in_paragraph
    average = count / max(sentences, 1)
    if average > AVERAGE:
        complaints.append(f"{file}:1: {average:.1f} words a sentence on average, {average - AVERAGE:.1f} too many")
    return f"{file}: {len(lines)} lines, {average:.1f} words a sentence"

files = [one for one in sys.argv[1:] if one != "-v"] or [path for path in tree if path.endswith(".md") and "/vendor/" not in path]
figures = [check(file) for file in files]
print("\n".join(complaints or (figures if "-v" in sys.argv else [])))
sys.exit(bool(complaints))
