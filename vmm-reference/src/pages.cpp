// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "pages.hpp"

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <iterator>
#include <string_view>
#include <vector>

#include "command_line.hpp"

namespace vmm_reference {

namespace {

using Group = std::vector<const CLI::Option*>;

// Those of one kind of guest first, what goes with any last.
std::vector<std::pair<std::string, Group>> groups(const CLI::App& app) {
  std::vector<std::pair<std::string, Group>> all;
  for (const std::string& name : app.get_groups()) {
    all.emplace_back(name, app.get_options([&](const CLI::Option* option) {
      return option->get_group() == name;
    }));
  }
  std::rotate(all.begin(), all.begin() + 1, all.end());
  return all;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

// "-h, --help", "GUEST"
std::string names(const CLI::Option& option) {
  std::string text;
  for (const std::string& name : option.get_snames()) text += "-" + name + ", ";
  for (const std::string& name : option.get_lnames()) text += "--" + name + ", ";
  if (!text.empty()) return text.substr(0, text.size() - 2);
  return upper(option.get_name(true));
}

// What follows the name: "[path=]FILE", "pvh|hvm|native [pvh]"; nothing after a flag.
std::string value(const CLI::Option& option) {
  return option.get_expected_max() == 0 || option.get_positional() ? "" : option.get_option_text();
}

std::string wrapped(std::string_view text, std::size_t indent) {
  constexpr std::size_t width = 80;
  std::string out;
  while (!text.empty()) {
    std::size_t length = std::min(text.size(), width - indent);
    if (length < text.size()) length = std::min(text.rfind(' ', length), text.size());
    out.append(indent, ' ').append(text.substr(0, length)).append("\n");
    text.remove_prefix(std::min(length + 1, text.size()));
  }
  return out;
}

// --- roff ---

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if (c == '\'') {
      out += "\\(aq";
    } else if (c == '.' && (out.empty() || out.back() == '\n')) {
      out += "\\&.";
    } else {
      out += c;
    }
  }
  return out;
}

std::string heading(std::string_view title) {
  return ".SH \"" + escaped(upper(std::string(title))) + "\"\n";
}

// Lines as they are.
std::string as_it_is(const Section& section) {
  return heading(section.title) + ".nf\n" + escaped(section.text) + ".fi\n";
}

// --- bash ---

struct Completion {
  std::string key;    // that the value may begin with: "path="
  std::string words;  // to choose from, blanks in between
  bool is_list = false;
  bool is_file = false;
};

// By what the table says that the value looks like.
Completion completion(const CLI::Option& option) {
  Completion found;
  std::string text = value(option);
  if (const auto end = text.find("=]"); text[0] == '[' && end != std::string::npos) {
    found.key = text.substr(1, end);
    text.erase(0, end + 2);
  }
  text = text.substr(0, text.find(' '));
  found.is_file = text == "FILE" || text == "FOLDER";
  found.is_list = text.find(",...") != std::string::npos;
  text = text.substr(0, text.find(",..."));
  if (text.find('|') == std::string::npos) return found;
  std::replace(text.begin(), text.end(), '|', ' ');
  found.words = text;
  return found;
}

}  // namespace

std::string help_page(const CLI::App& app) {
  std::string page = wrapped(purpose, 0) + "\n";
  const auto add = [&page](const Section& section) {
    page += std::string(section.title) + ":\n" + section.text + "\n";
  };
  add(usage);
  add(examples);
  for (const auto& [name, options] : groups(app)) {
    page += name + ":\n";
    for (const CLI::Option* option : options) {
      const std::string text = value(*option);
      page += "  " + names(*option) + (text.empty() ? "" : " ") + text + "\n" +
              wrapped(option->get_description(), 6);
    }
    page += "\n";
  }
  std::for_each(std::begin(more), std::end(more), add);
  page.pop_back();
  return page;
}

std::string man_page(const CLI::App& app) {
  std::string page = R"(.\" SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
.TH VMM\-REFERENCE 1 "" ")" +
                     escaped(app.version()) + R"("
.SH NAME
vmm\-reference \- run a Xen guest on KVM
)" + as_it_is({"Synopsis", usage.text}) +
                     heading("Description") + escaped(purpose) + "\n";
  for (const auto& [name, options] : groups(app)) {
    page += heading("Options: " + name);
    for (const CLI::Option* option : options) {
      page += ".TP\n\\fB" + escaped(names(*option)) + "\\fR " + escaped(value(*option)) + "\n" +
              escaped(option->get_description()) + "\n";
    }
  }
  for (const Section& section : more) page += as_it_is(section);
  return page + as_it_is(examples);
}

std::string bash_completion(const CLI::App& app) {
  std::string all;
  std::string cases;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      all += (all.empty() ? "--" : " --") + name;
      if (value(*option).empty()) continue;
      const Completion with = completion(*option);
      cases += "    --" + name + ")";
      if (!with.key.empty()) cases += " word=${word#" + with.key + "}";
      if (with.is_list) cases += " list=${word%\"${word##*,}\"}";
      if (!with.words.empty()) {
        cases += " found=$(compgen -P \"$list\" -W '" + with.words + "' -- \"${word#\"$list\"}\")";
      } else if (with.is_file) {
        cases += " found=$(compgen -f -- \"$word\") files=1";
      }
      cases += " ;;\n";
    }
  }
  return R"(# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# Completes vmm-reference's options and their values in bash.

_vmm_reference() {
  # Readline takes "=" and ":" for the ends of words and replaces what is behind the last; we don't.
  local line=${COMP_LINE:0:COMP_POINT} typed=${COMP_WORDS[COMP_CWORD]} list='' found='' files=''
  local word=${line##*[[:blank:]]}
  line=${line%"$word"}
  line=${line%"${line##*[![:blank:]]}"}
  local option=${line##*[[:blank:]]}
  if [[ $word == --*=* ]]; then
    option=${word%%=*}
    word=${word#*=}
  fi
  [[ $typed != [=:] ]] || typed=''
  case $option in
)" + cases +
         R"(    *)
      if [[ $word == -* ]]; then
        found=$(compgen -W ')" +
         all + R"(' -- "$word")
      else
        found=$(compgen -f -- "$word") files=1
      fi ;;
  esac
  mapfile -t COMPREPLY <<<"$found"
  [[ $found ]] || COMPREPLY=()
  COMPREPLY=("${COMPREPLY[@]#"${word%"$typed"}"}")
  [[ ! $files ]] || compopt -o filenames 2>/dev/null
}
complete -F _vmm_reference vmm-reference
)";
}

}  // namespace vmm_reference
