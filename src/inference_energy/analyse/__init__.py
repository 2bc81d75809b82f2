"""One module per question: tables in, a frozen result out."""
