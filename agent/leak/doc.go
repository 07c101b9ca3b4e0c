// Package leak finds a token in bytes from outside and masks it.
//
// HubSpot has no reason to send a token back, but an answer may echo a request
// header, a proxy may answer with what it got, and an error page may show it.
// The agent promises that no client reads a token through it, so every answer
// passes through here on its way to the client, after decompression.
//
// An occurrence is the token, or its form in all upper or all lower case,
//
//   - as it is;
//   - with any of its characters written as %XX, \uXXXX, \xXX or, for signs,
//     behind a backslash, in any mixture;
//   - in base64 (both alphabets, whatever stands before it) or hexadecimal.
//
// Each of its bytes is replaced by "*", so that lengths hold. Occurrences may
// overlap: every byte that belongs to one is masked.
//
// What this cannot do: see a token that the sender transforms in another way
// (reversed, encrypted, cut in parts, encoded twice). HubSpot is trusted not to
// do that; the search is against accidents and naive echoes.
package leak
